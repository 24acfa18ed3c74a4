"""Run lengths and polygons against pycocotools', and what is refused."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from ddf_jax.detection.rle import (
    MaskError,
    Rle,
    decode_rle,
    encode_counts,
    encode_mask,
    encode_polygons,
    read_counts,
)

MASKS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools' own decoding
@hypothesis.given(MASKS)
def test_a_mask_survives(mask: np.ndarray):
    rle = encode_mask(mask)
    decoded = decode_rle(rle, mask.shape)
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask)
    np.testing.assert_array_equal(decoded, coco_mask.decode(rle))
    assert encode_counts(read_counts(rle["counts"]), mask.shape) == rle


def test_long_and_falling_run_lengths_are_read():
    """The text has differences of both signs and of several digits."""
    counts = [3, 40, 5000, 2, 1, 77_777, 0, 9, 1_000_000]
    height, width = sum(counts), 1
    np.testing.assert_array_equal(read_counts(encode_counts(counts, (height, width))["counts"]), counts)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 2], "5 pixels instead of 2×3"),
        ([3, 4], "7 pixels instead of 2×3"),
        ([], "run lengths"),
        ([7, -1], r"outside 0 … 6"),
        ([2**62, 2**62], r"outside 0 … 6"),
        ([2.0, 4.0], "not a list of whole numbers"),
        (["6"], "not a list of whole numbers"),
        ([[6]], "not a list of whole numbers"),
        ([0, [6]], "lists within a list"),
    ],
)
def test_run_lengths_that_do_not_cover_the_image_are_refused(counts: list, message: str):
    with pytest.raises(MaskError, match=message):
        encode_counts(counts, (2, 3))


@hypothesis.given(st.binary(max_size=12))
def test_any_text_is_a_mask_of_the_image_or_refused(text: bytes):
    try:
        mask = decode_rle(Rle(size=[2, 3], counts=text), (2, 3))
    except MaskError:
        return
    assert mask.shape == (2, 3)


@pytest.mark.parametrize("text", [b"", b"P", b"oooooooo0", b"\xff0"])
def test_a_text_of_other_characters_or_cut_short_is_refused(text: bytes):
    with pytest.raises(MaskError):
        read_counts(text)
    with pytest.raises(MaskError):
        read_counts(text.decode("latin-1"))


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(MaskError, match=r"run lengths of \[3, 2\] instead of \[2, 3\]"):
        decode_rle(encode_mask(np.zeros((3, 2), bool)), (2, 3))


def test_polygons_are_drawn_and_united():
    squares = [[1, 1, 4, 1, 4, 3, 1, 3], [3.0, 2.0, 6.0, 2.0, 6.0, 5.0, 3.0, 5.0]]
    expected = np.zeros((8, 9), bool)
    expected[1:3, 1:4] = expected[2:5, 3:6] = True
    np.testing.assert_array_equal(decode_rle(encode_polygons(squares, (8, 9)), (8, 9)), expected)


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([], "no polygon"),
        ([[1, 1, 2, 2]], "three or more points"),
        ([[1, 1, 2, 2, 3, 3, 4]], "three or more points"),
        ([[1, 1, 2, 2, "3", 3]], "three or more points"),
        ([[1, 1, 2, float("nan"), 3, 3]], "leaves the image"),
        ([[1, 1, 2, 1e9, 3, 3]], "leaves the image"),
        ([[0, 0, 9, 8] * 100], "outline is longer"),
    ],
)
def test_polygons_that_could_take_memory_are_refused(polygons: list, message: str):
    with pytest.raises(MaskError, match=message):
        encode_polygons(polygons, (8, 9))
