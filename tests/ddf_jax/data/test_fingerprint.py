import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.fingerprint import Fingerprint, difference, fingerprint
from ddf_jax.data.sources import open_source


def of(folder: Path) -> Fingerprint:
    open_source.cache_clear()  # as in another process
    return fingerprint(DataConfig(folder=folder, image_size=8), LabelledImages())


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Large bitmaps, of which not all is read, and small ones."""
    folder = tmp_path / "pets"
    for index, name in enumerate(("cat", "dog", "eel")):
        for split, side in (("train", 200), ("train", 20), ("test", 10)):
            file = folder / split / name / f"{side}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((side, side, 3), 40 * index, np.uint8)).save(file)
    return folder


def replace_pixels(folder: Path) -> None:
    file = folder / "train" / "dog" / "200.bmp"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)


def swap(folder: Path) -> None:
    (folder / "train" / "cat").rename(folder / "other")
    (folder / "train" / "dog").rename(folder / "train" / "cat")
    (folder / "other").rename(folder / "train" / "dog")


def rename(folder: Path) -> None:
    (folder / "train" / "eel" / "20.bmp").rename(folder / "train" / "eel" / "21.bmp")


def add(folder: Path) -> None:
    shutil.copy(folder / "test" / "cat" / "10.bmp", folder / "test" / "cat" / "11.bmp")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (replace_pixels, "the train split differs in dog"),
        (swap, "the train split differs in cat, dog"),
        (rename, "the train split differs in eel"),
        (add, "the eval split differs in cat"),
    ],
)
def test_a_change_of_the_files_names_the_class(pets: Path, change: Callable[[Path], object], expected: str):
    before = of(pets)
    change(pets)
    assert difference(before, of(pets)) == expected


def test_a_copy_elsewhere_is_the_same(pets: Path, tmp_path: Path):
    copy = tmp_path / "deeper" / "copy"
    shutil.copytree(pets, copy)
    os.utime(copy / "train" / "cat" / "20.bmp", (0, 0))
    assert difference(of(pets), of(copy)) is None


def test_a_file_that_cannot_be_read_counts_by_its_reason(pets: Path):
    before = of(pets)
    file = pets / "train" / "cat" / "20.bmp"
    file.unlink()
    assert difference(before, fingerprint(DataConfig(folder=pets, image_size=8), LabelledImages())) == (
        "the train split differs in cat"
    )


def test_a_prepared_dataset_is_its_version_split_and_sizes(digits: DataConfig):
    before = fingerprint(digits, LabelledImages())
    assert before == {
        "train": {"dataset": "digits/1.0.0 'train' (train of 1437 examples in 1 shards of 227537 bytes)"},
        "eval": {"dataset": "digits/1.0.0 'test' (test of 360 examples in 1 shards of 56946 bytes)"},
    }
    now = fingerprint(dataclasses.replace(digits, eval_split="test[1:]"), LabelledImages())
    assert difference(before, before) is None
    assert difference(before, now) == (
        f"the eval split is {now['eval']['dataset']} instead of {before['eval']['dataset']}"
    )


def test_five_classes_are_named_and_the_others_counted():
    saved, now = ({"train": dict.fromkeys("abcdefg", text)} for text in "12")
    assert difference(saved, now) == "the train split differs in a, b, c, d, e and 2 more classes"
    assert difference(saved, {"train": {}, "eval": {"h": "1"}}) == (
        "the train split differs in a, b, c, d, e and 2 more classes, and the eval split differs in h"
    )
