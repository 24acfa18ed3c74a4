"""A few rooms with masks in a small format, prepared as the whole set is."""

import tempfile
from pathlib import Path

import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.data.datasets import rooms_panoptic
from ddf_jax.data.examples import DetectionImages
from ddf_jax.data.sources import open_source


def small_rooms_panoptic(folder: Path) -> DataConfig:
    """`rooms_panoptic` in `folder`: five of 48×64 pixels to train on, three to test on and two for validation."""
    config = DataConfig(dataset="rooms_panoptic", data_dir=folder, augment="flip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))  # TFDS leaves an empty temporary folder behind
        patch.setattr(rooms_panoptic, "SIZES", {"train": 5, "test": 3, "validation": 2})
        patch.setattr(rooms_panoptic, "HEIGHT", 48)
        patch.setattr(rooms_panoptic, "WIDTH", 64)
        open_source(config, DetectionImages(), "train")
    return config
