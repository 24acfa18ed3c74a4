"""Reads a run back: its model with the newest good parameters, and its score."""

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ddf_jax.data.pipeline import eval_batches
from ddf_jax.data.sources import DataInfo
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.errors import RunError
from ddf_jax.training.mesh import Devices, data_mesh, replicated
from ddf_jax.training.metrics import evaluate_batches
from ddf_jax.training.programs import compile_eval_step
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.run_folder import RunFolder
from ddf_jax.training.run_state import data_info
from ddf_jax.training.state import ModelState, abstract_model
from ddf_jax.training.summary import hardware, versions
from ddf_jax.training.tasks import task_of
from ddf_jax.training.writers import say


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model and what it was trained on."""

    recipe: Recipe
    info: DataInfo
    step: int
    state: ModelState

    def model(self) -> nnx.Module:
        """The model in evaluation mode: `logits = run.model()(images)`, or `depth = run.model()(images, low)`."""
        model = nnx.merge(*self.state)
        model.eval()
        return model


def load_run(workdir: Path | str, *, devices: Devices | None = None) -> Run:
    """The model of the newest readable checkpoint in `workdir`. The data set itself is not needed.

    Args:
        devices: where the parameters go; default: all devices of all processes.

    Raises:
        RunError: there is no run or no checkpoint, or none is readable.
    """
    folder = RunFolder(Path(workdir))
    recipe = folder.recipe()
    checkpoints = Checkpoints(folder.checkpoints, warn=say)
    step = checkpoints.newest()
    if step is None:
        raise RunError(f"The run in {folder.path} has no checkpoint yet. `ddf train` goes on with it.")
    info = data_info(checkpoints.record(step))
    structure, variables = abstract_model(recipe, info, replicated(data_mesh(devices)))
    return Run(recipe, info, step, ModelState(structure, checkpoints.load(step, {"model": variables})["model"]))


def upsample(run: Run, image: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Depth of the resolution of a picture, float32 [H, W] in the unit of `low`.

    Args:
        image: [H, W, 3] in [0, 1]; low: depth [⌈H/S⌉, ⌈W/S⌉], S the run's scale, 0 in holes.

    Raises:
        RunError: the run is not one for depth, or the sizes do not fit.
    """
    scale = run.info.scale
    if run.recipe.data.target != "depth" or scale is None:
        raise RunError(f"The run must be one for depth, got {run.recipe.name}, which finds a {run.recipe.data.target}.")
    height, width = image.shape[:2]
    expected = (-(-height // scale), -(-width // scale))
    if low.shape != expected:
        raise RunError(
            f"The picture must be {scale} times as large as the depth map: for a picture of {height}×{width} the depth "
            f"must be {expected[0]}×{expected[1]}, got {low.shape[0]}×{low.shape[1]}."
        )
    structure, variables = nnx.split(run.model())
    answer = jax.jit(lambda variables, *inputs: nnx.merge(structure, variables)(*inputs))
    return np.asarray(answer(variables, image[None], low[None, ..., None])[0, ..., 0])


def evaluate(workdir: Path | str, *, devices: Devices | None = None) -> dict[str, Any]:
    """Scores the newest readable checkpoint in `workdir` on the recipe's evaluation split; writes nothing.

    Returns:
        `{"name", "model", "step", "device", …}` and the task's scores, such as `test_accuracy` or `test_rmse`.

    Raises:
        RunError: as `load_run`.
    """
    run, mesh = load_run(workdir, devices=devices), data_mesh(devices)
    batch_size = math.ceil(run.recipe.batch_size / mesh.size) * mesh.size  # any size gives the same score
    eval_step = compile_eval_step(run.recipe, run.info, mesh, run.state, batch_size)
    batches = eval_batches(
        run.recipe.data,
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    with contextlib.closing(batches):
        scores = evaluate_batches(eval_step, run.state.variables, batches, mesh, task=task_of(run.recipe)) or {}
    run_facts = {"name": run.recipe.name, "model": run.recipe.model.name, "step": run.step}
    return {**run_facts, **scores, **hardware(mesh), "versions": versions()}
