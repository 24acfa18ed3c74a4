"""A trained run or an exported file as what a server needs: from a batch of arrays to predictions."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddf_jax.data.config import DataConfig
from ddf_jax.data.info import DataInfo
from ddf_jax.dataclass_json import decode
from ddf_jax.errors import UserError
from ddf_jax.serving.exported import load_exported
from ddf_jax.serving.exporting import program_of
from ddf_jax.serving.services import Example, Service, service_of, stack
from ddf_jax.training.recipe import TASKS
from ddf_jax.training.run import load_run
from ddf_jax.training.tasks import Task

_COMPILED = 16  # programs that are kept: one for each shape of a batch

Shape = tuple[tuple[str, tuple[int, ...], str], ...]
"""Names, shapes and dtypes of an example's arrays: examples of one shape can share a batch."""


class Predictor:
    """Predictions for examples, a batch at a time, on one device.

    A batch is padded to a power of two, so that there are few shapes to compile for, or to the size that an exported
    file is for.

    Args:
        name: of the run.
        step: of its checkpoint.
        service: of its task.
        program: `(weights, arrays) -> predictions`.
        weights: by name.
        batch_size: of every call, where the program has a fixed one.
        shapes: of examples, where the program has fixed ones.
    """

    def __init__(
        self,
        name: str,
        step: int,
        service: Service,
        program: Callable[[Any, Any], dict[str, jax.Array]],
        weights: Mapping[str, jax.Array],
        batch_size: int | None = None,
        shapes: Sequence[Shape] | None = None,
    ) -> None:
        self.name, self.step, self.service, self.batch_size = name, step, service, batch_size
        self._program, self._weights, self._shapes = program, dict(weights), shapes
        self._compiled = functools.lru_cache(_COMPILED)(self._compile)

    def __call__(self, examples: Sequence[Example]) -> list[dict[str, np.ndarray]]:
        """The predictions for each example; all have one shape."""
        rows = self.batch_size or 1 << (len(examples) - 1).bit_length()
        program = self._compiled(rows, shape_of(examples[0].arrays))
        outputs = jax.device_get(program(self._weights, stack(examples, rows)))
        return [{name: values[row] for name, values in outputs.items()} for row in range(len(examples))]

    def check(self, shape: Shape) -> None:
        """Raises `UserError` where an example is of a shape that the program is not for."""
        if self._shapes is not None and shape not in self._shapes:
            raise UserError(f"The exported file is for {' or '.join(map(_text, self._shapes))}, got {_text(shape)}.")

    def warm_up(self, max_batch: int) -> None:
        """Compiles for every batch that can come, unless images come in sizes of their own."""
        shapes = self._shapes
        if shapes is None:
            resized = self.service.inputs(1, *self.service.size) if self.service.resizes else []
            shapes = [shape_of(inputs, axes=1) for inputs in resized]
        sizes = [self.batch_size] if self.batch_size else [1 << power for power in range(max_batch.bit_length())]
        for shape in shapes:
            for rows in sizes:
                self._compiled(rows, shape)

    def _compile(self, rows: int, shape: Shape) -> Any:
        arrays = {name: jax.ShapeDtypeStruct((rows, *of), dtype) for name, of, dtype in shape}
        program = self._program
        # A function of its own each time: what JAX keeps of it goes with it.
        return jax.jit(lambda weights, arrays: program(weights, arrays)).lower(self._weights, arrays).compile()


def shape_of(arrays: Mapping[str, Any], *, axes: int = 0) -> Shape:
    """Names, shapes without the first `axes`, and dtypes of arrays."""
    return tuple(sorted((name, tuple(of.shape[axes:]), np.dtype(of.dtype).name) for name, of in arrays.items()))


def open_predictor(
    path: Path | str,
    checkpoint: int | str = "newest",
    *,
    recipe_file: Path | None = None,
) -> Predictor:
    """The predictor of a run's folder or of a file that `ddf export` wrote.

    Raises:
        RunError: there is neither, or it cannot be read.
        UserError: the run's task is not one that can be served.
    """
    if Path(path).is_dir():
        run = load_run(path, checkpoint, devices=jax.devices()[:1], recipe_file=recipe_file)
        service = service_of(run.recipe.task, run.info, run.recipe.data)
        return Predictor(run.recipe.name, run.step, service, *program_of(run.state, service))
    model = load_exported(path)
    facts, kinds = model.metadata, {Task: TASKS}
    task, info, data = (
        decode(kind, facts[name], kinds) for kind, name in ((Task, "task"), (DataInfo, "info"), (DataConfig, "data"))
    )
    [batch] = {inputs["image"]["shape"][0] for inputs in model.inputs}
    fixed = [
        tuple(sorted((name, tuple(of["shape"][1:]), of["dtype"]) for name, of in inputs.items()))
        for inputs in model.inputs
        if all(isinstance(size, int) for of in inputs.values() for size in of["shape"][1:])
    ]
    service = service_of(task, info, data)
    if service.resizes and fixed:
        wanted = [shape_of(inputs, axes=1) for inputs in service.inputs(1, *service.size)]
        if wanted != fixed:
            raise UserError(
                f"{path} must be exported for the size of the run's evaluation to be served, {_text(wanted[0])}, got "
                f"{' or '.join(map(_text, fixed))}. Export it without --image-size."
            )
    return Predictor(
        facts["name"],
        facts["step"],
        service,
        model.apply,
        model.weights,
        batch if isinstance(batch, int) else None,
        fixed or None,
    )


def _text(shape: Shape) -> str:
    return ", ".join(f"{name} {list(of)}" for name, of, _ in shape)
