"""Writes a trained network and its weights into one file that JAX runs without the code that built it."""

import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

import pallas_kernels
from ddf_jax.dataclass_json import encode
from ddf_jax.errors import UserError
from ddf_jax.files import write_atomically
from ddf_jax.serving.exported import FORMAT, METADATA, WEIGHTS, kinds_of, program_names
from ddf_jax.serving.services import Service, service_of
from ddf_jax.training.leaves import leaf_names
from ddf_jax.training.recipe import TASKS
from ddf_jax.training.run import Run
from ddf_jax.training.state import ModelState, eval_model
from ddf_jax.training.tasks import Task

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

Weights = dict[str, jax.Array]
Program = Callable[[Weights, Mapping[str, jax.Array]], dict[str, jax.Array]]
"""`(weights by name, arrays by name) -> predictions by name`."""


def export_run(
    run: Run,
    out: Path | str,
    *,
    platforms: Sequence[str] = ("cpu", "cuda"),
    batch_size: int | None = None,
    image_size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Writes the file, whole or not at all; `ddf_jax.serving.exported.load_exported` reads it.

    The programs compute in the dtype of the recipe, the weights are float32. Images enter as uint8 and are normalised
    inside. With batch size and image size given, the operator is its GPU kernels on CUDA; with either of them free it
    is XLA's, since kernels need static sizes.

    Args:
        run: from `load_run`.
        out: the file.
        platforms: that the programs are for: cpu, cuda, rocm, tpu.
        batch_size: of every call; default: any, of detectors 1.
        image_size: height and width of every image; default: any, of depth upsampling that of the evaluation, and of
            detectors that of the canvas, which cannot be another.

    Returns:
        What the file records, without the weights.

    Raises:
        UserError: a platform is unknown, the sizes are not possible, or the file cannot be written.
        NotImplementedError: the network cannot be exported.
    """
    path = check_file(out)
    if unknown := {*platforms} - {*PLATFORMS} or not platforms:
        raise UserError(f"`platforms` must be some of {', '.join(PLATFORMS)}, got {unknown or 'none'}.")
    service = service_of(run.recipe.task, run.info, run.recipe.data)
    program, weights = program_of(run.state, service)
    least_side = getattr(run.model(), "least_side", 1)
    shapes = argument_shapes(service, batch_size, image_size, least_side=least_side)
    programs = [_exported(program, weights, inputs, platforms) for inputs in shapes]
    metadata = _metadata(run, programs, platforms)
    serialised = [json.dumps(metadata, indent=2, allow_nan=False).encode(), *(each.serialize() for each in programs)]
    names = [METADATA, *program_names(len(programs))]
    members: dict[str, Any] = {name: np.frombuffer(of, np.uint8) for name, of in zip(names, serialised, strict=True)}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **members, **{name: np.asarray(values) for name, values in weights.items()})
    try:
        write_atomically(path, file.getvalue())
    except OSError as error:
        raise UserError(f"OUT must be a file that can be written, got {path}: {error.strerror}.") from None
    return metadata


def check_file(out: str | Path) -> Path:
    """The path of a file that can be written, as far as that is known before.

    Raises:
        UserError: its folder does not exist, or it is a folder.
    """
    path = Path(out)
    if not path.parent.is_dir() or path.is_dir():
        raise UserError(f"OUT must be a file in a folder that exists, got {path}.")
    return path


def program_of(state: ModelState, service: Service) -> tuple[Program, Weights]:
    """The service's program as a function of the weights, and the weights.

    Random keys and counters are not among them: a network in evaluation draws nothing."""
    leaves, tree = jax.tree.flatten(state.variables)
    names = [WEIGHTS + name for name in leaf_names(state.variables)]
    weights = {name: leaf for name, leaf in zip(names, leaves, strict=True) if jnp.issubdtype(leaf.dtype, jnp.floating)}

    def program(weights: Weights, arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        given = [weights.get(name, leaf) for name, leaf in zip(names, leaves, strict=True)]
        model = eval_model(ModelState(state.structure, jax.tree.unflatten(tree, given)))
        return service.compute(model, arrays)

    return program, weights


def argument_shapes(
    service: Service, batch_size: int | None, image_size: tuple[int, int] | None, *, least_side: int = 1
) -> list[dict[str, jax.ShapeDtypeStruct]]:
    """The arrays of each program; a size that is not given and may vary is a symbol, of an image at least `least_side`.

    Raises:
        UserError: a size is not possible.
    """
    scope = export.SymbolicScope([f"{side} >= {least_side}" for side in "hw"] if least_side > 1 else ())
    batch: Any = batch_size
    if batch_size is None:
        batch = export.symbolic_shape("b", scope=scope)[0] if service.any_batch else 1
    size: Any = image_size
    if image_size is None:
        size = export.symbolic_shape("h, w", scope=scope) if service.any_size else service.size
    if any(length < 1 for length in (*([] if batch_size is None else [batch_size]), *(image_size or ()))):
        raise UserError(f"Sizes must be at least 1, got batches of {batch_size} and images of {image_size}.")
    if service.resizes and not service.any_size and image_size not in (None, service.size):
        raise UserError(
            f"The size of images must be that of the canvas, {service.size}, got {image_size}: leave it out."
        )
    return service.inputs(batch, *size)


def _exported(
    program: Program, weights: Weights, inputs: dict[str, jax.ShapeDtypeStruct], platforms: Sequence[str]
) -> export.Exported:
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}
    checks = pallas_kernels.DISABLED_EXPORT_CHECKS
    return export.export(jax.jit(program), platforms=platforms, disabled_checks=checks)(shapes, inputs)


def _metadata(run: Run, programs: Sequence[export.Exported], platforms: Sequence[str]) -> dict[str, Any]:
    kinds: Any = {Task: TASKS}
    return {
        "format": FORMAT,
        "name": run.recipe.name,
        "step": run.step,
        "model": run.recipe.model.name,
        "dtype": run.recipe.dtype,
        "task": encode(run.recipe.task, kinds),
        "info": encode(run.info, kinds),
        "data": encode(dataclasses.replace(run.recipe.data, folder=None, data_dir=None), kinds),
        "platforms": list(platforms),
        "programs": [_shapes(exported) for exported in programs],
        "jax": jax.__version__,
    }


def _shapes(exported: export.Exported) -> dict[str, Any]:
    (_, inputs), _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        "inputs": kinds_of(inputs),
        "outputs": kinds_of(outputs),
        "kernels": pallas_kernels.aot.TRITON_CALL in str(exported.mlir_module()),
    }
