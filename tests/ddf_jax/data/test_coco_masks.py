"""Masks of COCO's JSON: both forms of run lengths, polygons, and what is neither."""

import logging
from pathlib import Path

import numpy as np
import pytest

from ddf_jax.data.detection_source import Labels
from ddf_jax.detection.rle import encode_mask, read_counts
from tests.ddf_jax.data.coco_files import HEIGHT, WIDTH, instances, mask, opened, rectangle, write_coco


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_of_both_forms_are_read(tmp_path: Path, compressed: bool):
    drawn = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5
    text = encode_mask(drawn)["counts"]
    counts = text.decode() if compressed and isinstance(text, bytes) else read_counts(text).tolist()
    data = instances()
    data["annotations"][0]["segmentation"] = {"counts": counts, "size": [HEIGHT, WIDTH]}
    source = opened(write_coco(tmp_path, data))
    np.testing.assert_array_equal((source[1] or {})["masks"][0], drawn)


BAD_MASKS = {
    "no segmentation": None,
    "no polygon": [],
    "two points": [[1, 1, 5, 5]],
    "an odd number": [[1, 1, 5, 5, 3, 3, 3]],
    "text": [["1", 1, 5, 5, 3, 3]],
    "not a number": [[1, 1, float("nan"), 5, 3, 3]],
    "far outside": [[1, 1, 1e8, 5, 3, 3]],
    "too long": [[0, 0, 49, 39] * 999],
    "run lengths of another size": {"counts": [HEIGHT * WIDTH], "size": [WIDTH, HEIGHT]},
    "run lengths of a huge size": {"counts": [10**12], "size": [10**6, 10**6]},
    "too many run lengths": {"counts": [HEIGHT * WIDTH, 1], "size": [HEIGHT, WIDTH]},
    "too large run lengths": {"counts": [10**30], "size": [HEIGHT, WIDTH]},
    "a text of other things": {"counts": "\u00e9", "size": [HEIGHT, WIDTH]},
    "run lengths without a size": {"counts": [HEIGHT * WIDTH]},
    "run lengths of an object": {"counts": {}, "size": [HEIGHT, WIDTH]},
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_an_annotation_without_a_mask_is_left_out_where_masks_are_wanted(
    tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
):
    data = instances()
    data["annotations"][1]["segmentation"] = BAD_MASKS[case]
    with caplog.at_level(logging.WARNING):
        source = opened(write_coco(tmp_path, data))
        caplog.clear()
        for _ in range(2):
            assert (source[0] or {})["labels"].tolist() == [0]
            assert source.truth(0)[1].labels.tolist() == [0, 2]
    assert len(caplog.messages) == 1
    assert f"annotation 1 of {source.name} has no mask (" in caplog.messages[0]
    assert "number 1" in caplog.messages[0]
    assert (opened(tmp_path, Labels())[0] or {})["labels"].tolist() == [1, 0]


def test_polygons_of_less_than_three_points_do_not_count(tmp_path: Path):
    data = instances()
    data["annotations"][1]["segmentation"] = [[1, 1, 5, 5], rectangle(5, 6, 10, 8)]
    np.testing.assert_array_equal((opened(write_coco(tmp_path, data))[0] or {})["masks"][0], mask(5, 6, 10, 8))
