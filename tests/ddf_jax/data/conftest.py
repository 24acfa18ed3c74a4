"""Prepared digits, shared by all tests of a run, and small folders of images."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.sources import open_source


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """`digits` at its own size without augmentation."""
    folder = tmp_path_factory.mktemp("tfds")
    config = DataConfig(data_dir=folder, image_size=8, augment="none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))  # TFDS leaves an empty temporary folder behind
        open_source(config, LabelledImages(), "train")
    return config


@pytest.fixture
def write_images() -> Callable[..., list[Path]]:
    """Writes `count` 12 × 10 images below a folder; image i has the grey value `first + i` everywhere."""

    def write(folder: Path, count: int, first: int = 0, suffix: str = ".png") -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{first + i:03d}{suffix}" for i in range(count)]
        for i, path in enumerate(paths):
            Image.fromarray(np.full((10, 12, 3), first + i, np.uint8)).save(path)
        return paths

    return write
