"""The weights that a new run starts from: those of another run, or of a file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.checkpoints.backbone import fit_backbone, is_for_backbone, own_names
from ddf_jax.checkpoints.conversion import read_named
from ddf_jax.checkpoints.fitting import FitRules, fit
from ddf_jax.errors import RunError
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.leaves import leaf_names
from ddf_jax.training.processes import check_same_in_all_processes
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.reporting import log_info
from ddf_jax.training.run import find_checkpoint, load_run
from ddf_jax.training.state import Variables
from ddf_jax.training.workdir import RunFolder


def check_init_from(recipe: Recipe) -> None:
    """Raises `UserError` where a new run of this recipe has nothing to start from, although it must.

    Nothing but `init_from` is read, so that this is known before the data are opened.
    """
    source = recipe.init_from
    if source is None:
        if recipe.freeze:
            raise RunError(
                f"`freeze` ({', '.join(recipe.freeze)}) needs `init_from` (`--init-from RUN|FILE`), a run or a file "
                "whose parameters are worth keeping: random ones would never be trained. Or give an empty `freeze`."
            )
    elif source.is_dir():
        folder = RunFolder(source)
        step: int | Literal["newest"] = "newest" if recipe.init_step is None else recipe.init_step
        find_checkpoint(folder, Checkpoints(folder.checkpoints), step)
    elif not source.exists():
        raise RunError(f"`init_from` must be the folder of a run or a file of weights, got {source}, which is neither.")
    elif recipe.init_step is not None:
        raise RunError(f"`init_step` is the checkpoint of a run, but `init_from` is the file {source}; leave it out.")
    else:
        read_named(source)


def initialize_from(recipe: Recipe, variables: Variables) -> tuple[Variables, dict[str, Any]]:
    """The state before the first step, with the parameters and statistics of the run or file in `recipe.init_from`.

    Those of a classifier go into the backbone of a detector.

    Args:
        recipe: of the new run, which `check_init_from` accepts; its `init_…` fields are the rules.
        variables: the state that `initial_variables` made. The optimizer's and what is not loaded stay.

    Returns:
        The state, each array as float32 in the place of the old one, and a record of the start: `{"from", "step" (None
        for a file), "sha256" (of all tensors read, with their names), "loaded" (how many), "initialised" (names)}`.

    Raises:
        UserError: `init_from` cannot be read, or does not fit the model.
    """
    source, model = Path(recipe.init_from or ""), variables["model"]
    shapes = {name: leaf.shape for name, leaf in _floating(model).items()}
    step = None
    if source.is_dir():
        devices = jax.tree.leaves(model)[0].sharding.mesh.devices.flat
        run = load_run(source, "newest" if recipe.init_step is None else recipe.init_step, devices=list(devices))
        tensors, step = {name: np.asarray(leaf) for name, leaf in _floating(run.state.variables).items()}, run.step
    else:
        tensors = read_named(source, own=own_names(shapes))
    rules = FitRules(recipe.init_head, recipe.init_in_channels, recipe.init_allow_missing, recipe.init_allow_unexpected)
    for_backbone = is_for_backbone(shapes, tensors)
    arrays, report = (fit_backbone if for_backbone else fit)(shapes, tensors, str(source), rules)
    digest = _digest(tensors)
    check_same_in_all_processes({"initial weights": digest})
    origin = f"{source}{'' if step is None else f', step {step}'}{', as the backbone' if for_backbone else ''}"
    log_info(f"Starting from {origin}: {report.line()}.")

    def place(name: str, old: jax.Array) -> jax.Array:
        return jax.device_put(np.array(arrays[name], old.dtype), old.sharding) if name in arrays else old

    leaves = [place(name, leaf) for name, leaf in zip(leaf_names(model), jax.tree.leaves(model), strict=True)]
    started = variables | {"model": jax.tree.unflatten(jax.tree.structure(model), leaves)}
    record = {"from": str(source), "step": step, "sha256": digest}
    return started, record | {"loaded": report.loaded, "initialised": list(report.initialised)}


def _floating(model: Variables) -> dict[str, jax.Array]:
    """Parameters and statistics by name, without random keys and counters."""
    leaves = zip(leaf_names(model), jax.tree.leaves(model), strict=True)
    return {name: leaf for name, leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}{list(tensor.shape)} ".encode() + tensor.tobytes())
    return digest.hexdigest()
