"""Predictions and evaluations of a loaded run."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import UserError
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.devices import data_mesh
from ddf_jax.training.evaluate import evaluate
from ddf_jax.training.recipe import ModelConfig, Recipe
from ddf_jax.training.run import Run, load_run, predict, upsample
from ddf_jax.training.step import ModelState
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling


@pytest.fixture(scope="module")
def run(unbroken: Path) -> Run:
    return load_run(unbroken, devices=jax.devices()[:2])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (67, 8, 8), np.uint8)


def test_any_number_of_images_is_predicted_as_one_by_one(run: Run, images: np.ndarray, tmp_path: Path):
    whole = predict(run, images)  # in batches of 64, the second of them padded
    assert (whole.shape, whole.dtype) == ((67, 10), np.float32)
    np.testing.assert_allclose(whole.sum(1), 1, rtol=1e-5)
    normalised = (images[64:, :, :, None].astype(np.float32) / 255 - 0.3058) / 0.3761
    model = run.model()
    logits = np.asarray(jax.jit(lambda x: model(x))(normalised))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(whole[64:], chances, rtol=1e-4)
    Image.fromarray(images[1]).save(tmp_path / "one.png")
    mixed = predict(run, [tmp_path / "one.png", Image.fromarray(images[1]), images[1]])
    np.testing.assert_allclose(mixed, whole[[1, 1, 1]], rtol=1e-5)


def test_nothing_to_predict_is_refused(run: Run):
    with pytest.raises(UserError, match="`images` must hold an image, got none"):
        predict(run, [])


def test_a_checkpoint_is_loaded_by_its_step(unbroken: Path):
    assert load_run(unbroken, 12).step == 12
    with pytest.raises(UserError, match=r"There is no checkpoint 13 in .*; there are \[12, 18, 20\]"):
        load_run(unbroken, 13)


def test_the_recipe_of_a_run_is_that_of_its_checkpoint(unbroken: Path, tmp_path: Path):
    shutil.copytree(unbroken, tmp_path / "run")
    file = tmp_path / "run" / "recipe.json"
    recipe = json.loads(file.read_text())
    file.write_text(json.dumps(recipe | {"seed": 77}))
    assert load_run(tmp_path / "run").recipe == load_run(unbroken).recipe


def test_a_checkpoint_that_training_removes_while_it_is_read_gives_way_to_a_newer_one(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    shutil.move(workdir / "checkpoints" / "20", tmp_path / "newer")
    load = Checkpoints.load

    def load_late(self: Checkpoints, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        if step == 18:
            shutil.rmtree(workdir / "checkpoints" / "18")
            shutil.move(tmp_path / "newer", workdir / "checkpoints" / "20")
        return load(self, step, abstract)

    monkeypatch.setattr(Checkpoints, "load", load_late)
    assert load_run(workdir).step == 20


def test_other_data_of_the_same_kind_are_evaluated(run: Run):
    first = evaluate(run, dataclasses.replace(run.recipe.data, eval_split="test[:20]"))
    assert first["test_examples"] == 20
    assert (first["name"], first["step"], first["devices"]) == ("tiny", 20, 2)
    small = dataclasses.replace(run, info=dataclasses.replace(run.info, channels=3))
    with pytest.raises(UserError, match=r"`data` must have the classes and channels of the run's"):
        evaluate(small, run.recipe.data)


def test_a_run_is_used_for_its_own_task(run: Run):
    recipe = Recipe("depth", ModelConfig("ddf_up_net"), DataConfig(), task=DepthUpsampling())
    info = DataInfo(0, (), channels=3, train_size=5, eval_size=3, image_size=16)
    depth = Run(recipe, info, 1, ModelState(run.state.structure, {}), data_mesh())
    with pytest.raises(UserError, match=r"takes an image alone, got depth, whose model takes image and low"):
        predict(depth, [np.zeros((8, 8), np.uint8)])
    with pytest.raises(UserError, match="must be one of depth upsampling, got tiny, a Classification"):
        upsample(run, np.zeros((8, 8, 3), np.float32), np.zeros((2, 2), np.float32))
    with pytest.raises(UserError, match="for an image of 8×9 the depth must be 2×3, got 2×2"):
        upsample(depth, np.zeros((8, 9, 3), np.float32), np.zeros((2, 2), np.float32))
