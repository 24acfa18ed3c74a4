"""The shipped digits: the original values, what becomes of them on disk, and their split."""

import hashlib

import numpy as np
import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.data.datasets.digits import held_out, load_digits
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.sources import describe, open_source

IMAGES, LABELS = load_digits()


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def test_the_shipped_values_are_the_original_ones():
    assert (IMAGES.shape, IMAGES.dtype, LABELS.shape) == ((1797, 8, 8), np.uint8, (1797,))
    # Of `sklearn.datasets.load_digits` in scikit-learn 1.9.1, as uint8.
    assert (digest(IMAGES), digest(LABELS)) == ("8f26b2bd9d135c25", "8ba4f891220f5e4c")
    assert (LABELS[:12] == [*range(10), 0, 1]).all()
    assert IMAGES[0, :3].tolist() == [
        [0, 0, 5, 13, 9, 1, 0, 0],
        [0, 0, 13, 15, 10, 15, 5, 0],
        [0, 3, 15, 2, 0, 11, 8, 0],
    ]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_pixel_and_label_survives_the_round_trip(digits: DataConfig, split: str):
    is_test = held_out(LABELS)
    chosen = is_test if split == "eval" else ~is_test
    source = open_source(digits, LabelledImages(), split)
    examples = [source[i] for i in range(len(source))]
    images = np.stack([example["image"] for example in examples if example])
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 0], np.round(IMAGES[chosen] * 255.0 / 16))
    np.testing.assert_array_equal(np.round(images[..., 0] / 255 * 16), IMAGES[chosen])
    np.testing.assert_array_equal([example["label"] for example in examples if example], LABELS[chosen])


def test_the_split_is_fixed_disjoint_and_balanced():
    is_test = held_out(LABELS)
    assert (is_test.sum(), (~is_test).sum()) == (360, 1437)
    per_class = np.bincount(LABELS[is_test], minlength=10)
    assert (np.abs(per_class - np.bincount(LABELS) / 5) < 1).all()
    assert digest(np.flatnonzero(is_test).astype("<i8")) == "6708f8ccc741cc5f"


def test_describe_tells_what_a_model_needs(digits: DataConfig):
    info = describe(digits, LabelledImages())
    assert (info.num_classes, info.channels, info.image_size) == (10, 1, 8)
    assert (info.train_size, info.eval_size) == (1437, 360)
    assert info.class_names == tuple("0123456789")
