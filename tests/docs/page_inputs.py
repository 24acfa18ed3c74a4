"""What the code of a page reads: real runs and pictures, as small as can be, in the current folder."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import ddf_jax
from ddf_jax.data.datasets.digits import load_digits
from ddf_jax.data.info import DataInfo
from ddf_jax.recipes import digits
from ddf_jax.serving.exporting import export_run
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.recipe import ModelConfig, Recipe, recipe_to_json
from ddf_jax.training.state import create_model
from ddf_jax.training.tasks.detection import Detection
from ddf_jax.training.workdir import RunFolder
from pallas_kernels.ops import autotune
from pallas_kernels.ops.device import DEFAULT_GPU
from pallas_kernels.tuning import function, timing


def pictures_of_digits(patch: pytest.MonkeyPatch) -> None:
    """Two pictures, and the recipe `digits` with one step of a network of one block and 40 test images."""
    recipe = digits.recipe
    model = dataclasses.replace(recipe.model, options={**recipe.model.options, "width": 8, "blocks": (1,)})
    optimizer = dataclasses.replace(recipe.optimizer, warmup_epochs=0)
    data = dataclasses.replace(recipe.data, eval_split="test[:40]")
    small = dataclasses.replace(recipe, model=model, data=data, optimizer=optimizer, epochs=0.05)
    patch.setattr(digits, "recipe", small)
    images, labels = load_digits()
    for name, digit in (("seven.png", 7), ("one.png", 1)):
        Image.fromarray(images[labels == digit][0] * 15).save(name)


def exported_digits(patch: pytest.MonkeyPatch) -> None:
    """The run that the code before made, as one file."""
    export_run(ddf_jax.load_run("runs/digits"), "digits.npz")


def untrained_detector(patch: pytest.MonkeyPatch) -> None:
    """A run before its first step, and two pictures."""
    options = {"backbone_options": {"width": 8, "blocks": (1, 1, 1, 1)}, "channels": 16, "head_depth": 1}
    task = Detection(canvas=(64, 96))
    recipe = Recipe("rooms", ModelConfig("retinanet_resnet50", {**options, "backbone": "resnet18"}), task=task)
    info = DataInfo(6, tuple("abcdef"), 3, train_size=1, eval_size=1, image_size=64)
    folder = RunFolder(Path("runs/rooms"))
    folder.create()
    folder.begin(recipe)
    record = {"recipe": json.loads(recipe_to_json(recipe)), "data_info": dataclasses.asdict(info)}
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: create_model(recipe, info))))
    weights = jax.tree.map(filled, shapes)
    Checkpoints(folder.checkpoints).save(0, {"model": weights}, record)
    for name, size in (("kitchen.jpg", (80, 60)), ("hall.png", (40, 90))):
        Image.fromarray(np.full((*size, 3), 128, np.uint8)).save(name)


def filled(leaf: jax.ShapeDtypeStruct) -> Any:
    """An array of equal numbers, or a random key."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key(0) if is_key else np.full(leaf.shape, 0.01, leaf.dtype)


def interpreted_kernels(patch: pytest.MonkeyPatch) -> None:
    """Pallas's interpreter in place of a GPU, and of each kernel one tile and one other number of warps."""
    patch.setenv(autotune.CACHE_VARIABLE, "cache")
    patch.setattr(function, "current_device", lambda: DEFAULT_GPU)
    patch.setattr(function, "measure_of", functools.partial(function.measure_of, interpret=True, rounds=1))
    patch.setattr(timing, "FILLS_CACHES", 0.0)
    for name in ("tile_candidates", "warp_candidates"):
        candidates = getattr(autotune, name)
        patch.setattr(autotune, name, lambda *call, candidates=candidates: candidates(*call)[:1])


PREPARED = {
    "training": pictures_of_digits,
    "serving": exported_digits,
    "detection": untrained_detector,
    "kernels": interpreted_kernels,
}
"""Of a page, by its name, what comes before its code."""

ONE_AFTER_ANOTHER = ("training", "inspect", "serving", "robustness")
"""Pages whose code reads the run that that of the first trains."""
