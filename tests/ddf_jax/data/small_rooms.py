"""A few rooms in a small format, prepared as the whole set is."""

import tempfile
from pathlib import Path

import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.data.datasets import rooms
from ddf_jax.data.examples import DepthImages
from ddf_jax.data.sources import open_source


def small_rooms(folder: Path) -> DataConfig:
    """`rooms` in `folder`: five of 20×27 pixels to train on, three to test on and two for validation."""
    config = DataConfig(dataset="rooms", data_dir=folder, image_size=16, augment="holes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))  # TFDS leaves an empty temporary folder behind
        patch.setattr(rooms, "SIZES", {"train": 5, "test": 3, "validation": 2})
        patch.setattr(rooms, "HEIGHT", 20)
        patch.setattr(rooms, "WIDTH", 27)
        open_source(config, DepthImages(4), "train")
    return config
