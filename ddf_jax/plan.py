"""Collectives, memory and kernels of a training step compiled ahead of time for a GPU target; no GPU is needed."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import UserError
from ddf_jax.training.devices import check_batch_size, make_mesh
from ddf_jax.training.optimizers import make_optimizer
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.schedules import learning_rate_schedule, make_step_plan
from ddf_jax.training.state import abstract_state
from ddf_jax.training.step import compile_train_step
from pallas_kernels import aot

IMAGENET = "imagenet2012"
COCO = Path("coco")
"""The folder in which the shipped recipes expect COCO 2017."""

# Class or function that makes an operation -> the category of the operation; the first that is found counts.
_MAKERS = {
    "SpatialBranch": "filter_generation",
    "ChannelBranch": "filter_generation",
    "BatchNorm": "batch_norm",
    "dynamic_filter": "dynamic_filter",
    "Optimizer": "optimizer_and_casts",
    "squared_norms": "optimizer_and_casts",
    "promote_dtype": "optimizer_and_casts",
    "PointwiseConv": "convolution",
    "Conv": "convolution",
    "Linear": "convolution",
}
CATEGORIES = (*dict.fromkeys(_MAKERS.values()), "copies", "other")
"""Of the kernels of a step."""


def plan(recipe: Recipe, *, device: str = "h200", devices: int = 8) -> dict[str, Any]:
    """Collectives, bytes per device, kernels and launches of one training step, and the arguments of the call.

    Where batches have several shapes, the step is that of the first. Images are counted as float32; training moves
    those as uint8 whose normalisation it leaves to the step.

    `launches` has for each of `CATEGORIES` and for all of them the kernels that a device launches, the bytes that they
    move, the operations of matrix products and convolutions, and a lower bound of the time, the sum over the kernels of
    `pallas_kernels.aot.Launch.roofline_us`.

    To be called before anything else in the process uses JAX.

    Args:
        recipe: the run.
        device: a name from `pallas_kernels.aot.DEVICES`.
        devices: how many of them share the batch.

    Raises:
        UserError: there is no such device, the devices cannot share the batch, or the recipe's data are not at hand
            (ImageNet's and COCO's need not be).
        NotImplementedError: JAX's CUDA plugin is not installed; the message states how to install it.
    """
    if device not in aot.DEVICES:
        raise UserError(f"`device` must be one of {sorted(aot.DEVICES)}, got {device!r}.")
    if devices < 1:
        raise UserError(f"`devices` must be at least 1, got {devices}.")
    jax.config.update("jax_traceback_in_locations_limit", 10)  # JAX's default: `category` reads who made an operation
    mesh = make_mesh(recipe.mesh, aot.compile_only_devices(aot.DEVICES[device], devices))
    check_batch_size(recipe.batch_size, mesh, recipe.microbatches)
    info = _data_info(recipe)
    recipe = dataclasses.replace(recipe, task=recipe.task.variants()[0])
    steps = make_step_plan(recipe, info)
    learning_rate = learning_rate_schedule(recipe.optimizer, steps, recipe.batch_size)
    abstract = abstract_state(recipe, info, make_optimizer(recipe.optimizer, learning_rate), mesh)
    with jax.set_mesh(mesh):
        step: Any = compile_train_step(recipe, info, steps, mesh, abstract, learning_rate)
    arguments = {
        "recipe": recipe.name,
        "device": device,
        "devices": devices,
        "mesh": dict(mesh.shape),
        "batch_size": recipe.batch_size,
        "dtype": recipe.dtype,
        "jax": jax.__version__,
    }
    launches = aot.launches(step.as_text())
    return arguments | aot.program_summary(step) | {"launches": launch_sums(launches, aot.DEVICES[device])}


def launch_sums(launches: Iterable[aot.Launch], device: aot.Device) -> dict[str, dict[str, float]]:
    """Sums over the kernels of each category and over all: `{category: {launches, bytes, flops, roofline_us}}`."""
    table: dict[str, dict[str, float]] = {
        name: {"launches": 0, "bytes": 0, "flops": 0, "roofline_us": 0.0} for name in (*CATEGORIES, "total")
    }
    for launch in launches:
        for row in (table[category(launch)], table["total"]):
            row["launches"] += 1
            row["bytes"] += launch.num_bytes
            row["flops"] += launch.flops
            row["roofline_us"] += launch.roofline_us(device)
    return {name: row | {"roofline_us": round(row["roofline_us"], 1)} for name, row in table.items()}


def category(launch: aot.Launch) -> str:
    """Which of `CATEGORIES` a kernel belongs to: that of most of the traced operations inside."""
    if launch.kind == "copy":
        return "copies"
    makers = ({function.partition(".")[0] for function in stack} for stack in launch.stacks)
    found = [next((name for maker, name in _MAKERS.items() if maker in those), "other") for those in makers]
    return max(found, key=found.count, default="other")


def _data_info(recipe: Recipe) -> DataInfo:
    """Of the step's shapes only the number of classes and channels and the image size depend on the data."""
    data = recipe.data
    if data.folder is None and data.dataset.startswith(IMAGENET):
        names = tuple(map(str, range(1000)))
        return DataInfo(
            1000,
            names,
            channels=3,
            train_size=1_281_167,
            eval_size=50_000,
            image_size=data.image_size,
            eval_shape=data.eval_shape,
        )
    if data.folder == COCO and not COCO.exists():
        things, stuff = (tuple(map(str, range(count))) for count in (80, 53))
        return DataInfo(
            80, things, 3, train_size=117_266, eval_size=5_000, image_size=data.image_size, stuff_names=stuff
        )
    from ddf_jax.data.sources import describe

    return describe(data, recipe.task.examples())
