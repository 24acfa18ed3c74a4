"""The recipes for ImageNet-1k, on a few made pictures in files as TFDS writes them for `imagenet2012`."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ddf_jax.recipes import find_recipe, shipped_recipes
from ddf_jax.training.recipe import ModelConfig
from ddf_jax.training.train import train
from tests.ddf_jax.training.processes import ROOT, losses

NAMES = [name for name in shipped_recipes() if name.startswith("imagenet_")]


def made(seed: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    rng = np.random.default_rng(seed)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
        file, name = io.BytesIO(), f"{index}.JPEG"
        coarse.resize((int(rng.integers(60, 120)), int(rng.integers(60, 120)))).save(file, "jpeg")
        file.seek(0)
        yield name, {"image": file, "label": int(rng.integers(1000)), "file_name": name}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TFDS's own builder, with our pictures instead of the archives."""
    root, official = tmp_path_factory.mktemp("tfds"), tfds.builder_cls("imagenet2012")
    splits = {"train": made(0, 24), "validation": made(1, 10)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(official, "_split_generators", lambda *_: splits)
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        official(data_dir=root).download_and_prepare(file_format="array_record", download_config=config)
    return root


def test_the_modern_recipe_trains_end_to_end(imagenet: Path, tmp_path: Path):
    recipe = find_recipe("imagenet_ddf_resnet50_a3")
    data = dataclasses.replace(recipe.data, data_dir=imagenet, image_size=32, eval_image_size=48, workers=0)
    recipe = dataclasses.replace(
        recipe,
        model=ModelConfig("ddf_resnet50", {"width": 8, "blocks": (1,)}),
        data=data,
        optimizer=dataclasses.replace(recipe.optimizer, warmup_epochs=0),
        epochs=0.5,
        batch_size=4,
        log_every=1,
    )
    summary = train(recipe, tmp_path / "run", devices=jax.devices()[:2])
    assert (summary["steps"], summary["test_examples"]) == (3, 10)
    assert np.isfinite(losses(tmp_path / "run")).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_in_one_process_as_in_two_with_two_devices_each(name: str, imagenet: Path, tmp_path: Path):
    options = {
        "data.data-dir": imagenet,
        "data.image-size": 64,
        "data.eval-image-size": 64,
        "data.workers": 1,
        # DCDC normalises a vector for each image: over 8 of them rounding becomes 1e-4 in two steps.
        "batch-size": 24 if name == "imagenet_dcdc_resnet50" else 8,
        "epochs": 3 if name == "imagenet_dcdc_resnet50" else 1,
        "optimizer.warmup-epochs": 0,
        "dtype": "float32",
        "log-every": 1,
        # Of a batch of 8, BatchNorm in fifty random layers makes percents of the last bits.
        "model.options": "zero_init_last_norm=true",
    }
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    found = []
    for processes, devices in ((1, 1), (2, 2)):
        workdir = tmp_path / f"{processes}"
        launch = ["launch", "--processes", str(processes), "--devices-per-process", str(devices), "--", "train", name]
        command = [sys.executable, "-m", "ddf_jax", *launch, *words, "--workdir", str(workdir)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr
        summary = json.loads((workdir / "summary.json").read_text())
        assert (summary["processes"], summary["devices"], summary["steps"]) == (processes, processes * devices, 3)
        found.append(losses(workdir))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
