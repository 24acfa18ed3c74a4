"""Rendered furniture: seeds, balance, and a thing that fills its picture."""

import numpy as np
import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.data.datasets import furniture_views
from ddf_jax.data.datasets.furniture import CLASSES, bounds, plain_thing
from ddf_jax.data.datasets.rendering import render_thing
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.sources import describe, open_source


def test_a_thing_is_seeded_and_off_the_colour_of_its_background():
    first, again, other = (render_thing(np.random.default_rng(seed), "ball", 32, 32) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first.shape, first.dtype) == ((32, 32, 3), np.uint8)


@pytest.mark.parametrize("name", CLASSES)
def test_the_bounds_of_a_thing_hold_its_bodies_and_are_in_the_room(name):
    size = np.array([5.0, 2.8, 6.0], np.float32)
    for seed in range(5):
        thing = plain_thing(np.random.default_rng(seed), name, size)
        low, high = bounds(thing)
        assert thing.name == name
        assert len({id(body.paint) for body in thing.bodies}) == 1
        assert all(((low < body.centre) & (body.centre < high)).all() for body in thing.bodies)
        assert (high - low).max() < 2.6
        assert (low[1] > -0.2, high[1] < 2.8) == (True, True)


def test_the_splits_are_balanced_and_of_other_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(furniture_views, "SIZES", {"train": 10, "test": 5})
    monkeypatch.setattr(furniture_views, "SIDE", 16)
    config = DataConfig(dataset="furniture", data_dir=tmp_path, image_size=16)
    info = describe(config, LabelledImages())
    assert (info.class_names, info.train_size, info.eval_size) == (furniture_views.KINDS, 10, 5)
    train, test = (open_source(config, LabelledImages(), split) for split in ("train", "eval"))
    assert [(train[index] or {})["label"] for index in range(10)] == [*range(5)] * 2
    assert not np.array_equal((train[0] or {})["image"], (test[0] or {})["image"])
