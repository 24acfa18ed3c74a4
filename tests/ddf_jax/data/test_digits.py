import hashlib
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ddf_jax.data.config import DataConfig
from ddf_jax.data.datasets.digits import held_out
from ddf_jax.data.sources import describe, open_source

ORIGINAL: Any = load_digits()


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_pixel_and_label_survives_the_round_trip(digits: DataConfig, split):
    is_test = held_out(ORIGINAL.target)
    chosen = is_test if split == "eval" else ~is_test
    source = open_source(digits, split)
    examples = [source[i] for i in range(len(source))]
    images = np.stack([example["image"] for example in examples if example])
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 0], np.round(ORIGINAL.images[chosen] * 255 / 16))
    np.testing.assert_array_equal(np.round(images[..., 0] / 255 * 16), ORIGINAL.images[chosen])
    np.testing.assert_array_equal([example["label"] for example in examples if example], ORIGINAL.target[chosen])


def test_the_split_is_fixed_disjoint_and_balanced():
    is_test = held_out(ORIGINAL.target)
    assert (is_test.sum(), (~is_test).sum()) == (360, 1437)
    per_class = np.bincount(ORIGINAL.target[is_test], minlength=10)
    assert (np.abs(per_class - np.bincount(ORIGINAL.target) / 5) < 1).all()
    digest = hashlib.sha256(np.flatnonzero(is_test).astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "6708f8ccc741cc5f"


def test_describe_tells_what_a_model_needs(digits: DataConfig):
    info = describe(digits)
    assert (info.num_classes, info.channels, info.image_size) == (10, 1, 8)
    assert (info.train_size, info.eval_size) == (1437, 360)
    assert info.class_names == tuple("0123456789")
