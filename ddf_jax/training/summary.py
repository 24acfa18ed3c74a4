"""`summary.json`: what a finished run was, how well it did, how long it took and on what."""

import importlib.metadata
import platform
from typing import Any

import jax
from jax.sharding import Mesh

from ddf_jax.training.clock import Clock
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.run_state import RunState

_PACKAGES = ("ddf-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def summarize(recipe: Recipe, state: RunState, clock: Clock, parameters: int, mesh: Mesh) -> dict[str, Any]:
    """The summary of a run after its last step.

    `seconds` is all of its wall-clock time: compiling, training, evaluating and saving, over all launches, without what
    a kill undid. `images_per_second` counts only the time in training steps.
    """
    images = state.step * recipe.batch_size
    return {
        "name": recipe.name,
        "model": recipe.model.name,
        "dataset": str(recipe.data.folder or recipe.data.dataset),
        "parameters": parameters,
        **(state.evaluation or {}),
        "steps": state.step,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "dtype": recipe.dtype,
        "seconds": round(clock.seconds, 3),
        "images_per_second": round(images / clock.training_seconds, 1),
        **hardware(mesh),
        "versions": versions(),
    }


def hardware(mesh: Mesh) -> dict[str, Any]:
    """Kind and number of devices, number of processes."""
    return {"device": mesh.devices.flat[0].device_kind, "devices": mesh.size, "processes": jax.process_count()}


def versions() -> dict[str, str]:
    """Python and the packages whose version may change a result; one that is not installed as a package is left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
