"""Digits prepared once, and one unbroken run of the tiny recipe that others are compared with."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.sources import open_source
from ddf_jax.training import train as loop
from ddf_jax.training.train import train
from tests.ddf_jax.training.launch import tiny_recipe


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the prepared digits."""
    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))  # TFDS leaves an empty temporary folder behind
        open_source(DataConfig(data_dir=folder, image_size=8), LabelledImages(), "train")
    return folder


@pytest.fixture(scope="session")
def unbroken(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, trained in one go by this process on one device. `launch.py` gives its processes
    as many devices as this one has: then the same programs give the same bits."""
    workdir = tmp_path_factory.mktemp("runs") / "unbroken"
    train(tiny_recipe(data_dir), workdir, devices=jax.devices()[:1])
    return workdir


@pytest.fixture
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launches of a test that trains one recipe on the same devices compile its programs once."""
    for name in ("compile_train_step", "compile_eval_step"):
        monkeypatch.setattr(loop, name, _once(getattr(loop, name)))


def _once(make: Callable[..., Any]) -> Callable[..., Any]:
    made: list[Any] = []

    def first(*arguments: Any) -> Any:
        made.extend([] if made else [make(*arguments)])
        return made[0]

    return first
