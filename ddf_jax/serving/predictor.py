"""A trained run or an exported file as what a server needs: from a batch of arrays to predictions."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from ddf_jax.data.config import DataConfig
from ddf_jax.data.info import DataInfo
from ddf_jax.dataclass_json import decode
from ddf_jax.serving.exported import load_exported
from ddf_jax.serving.exporting import argument_shapes, program_of
from ddf_jax.serving.services import Example, Service, service_of, stack
from ddf_jax.training.recipe import TASKS
from ddf_jax.training.run import load_run
from ddf_jax.training.tasks import Task

_COMPILED = 16  # programs that are kept: one for each shape of a batch

Shape = tuple[tuple[str, tuple[int, ...], np.dtype], ...]
"""Name, shape and dtype of an example's arrays: examples of one shape can share a batch."""


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
    """

    def __init__(
        self,
        name: str,
        step: int,
        service: Service,
        program: Callable[[Any, Any], dict[str, jax.Array]],
        weights: Mapping[str, jax.Array],
        batch_size: int | None = None,
    ) -> None:
        self.name, self.step, self.service, self.batch_size = name, step, service, batch_size
        self._program, self._weights = program, dict(weights)
        self._compiled = functools.lru_cache(_COMPILED)(self._compile)

    def __call__(self, examples: Sequence[Example]) -> list[dict[str, np.ndarray]]:
        """The predictions for each example; all have one shape."""
        rows = self.batch_size or 1 << (len(examples) - 1).bit_length()
        program = self._compiled(rows, shape_of(examples[0]))
        outputs = jax.device_get(program(self._weights, stack(examples, rows)))
        return [{name: values[row] for name, values in outputs.items()} for row in range(len(examples))]

    def warm_up(self, max_batch: int) -> None:
        """Compiles for every batch that can come, where the sizes of images do not vary."""
        for inputs in argument_shapes(self.service, 1, None):
            shape = tuple(sorted((name, of.shape[1:], np.dtype(of.dtype)) for name, of in inputs.items()))
            sizes = [self.batch_size] if self.batch_size else [1 << power for power in range(max_batch.bit_length())]
            for rows in sizes:
                self._compiled(rows, shape)

    def _compile(self, rows: int, shape: Shape) -> Any:
        arrays = {name: jax.ShapeDtypeStruct((rows, *of), dtype) for name, of, dtype in shape}
        program = self._program
        # A function of its own each time: what JAX keeps of it goes with it.
        return jax.jit(lambda weights, arrays: program(weights, arrays)).lower(self._weights, arrays).compile()


def shape_of(example: Example) -> Shape:
    """The shape that examples of a batch share."""
    return tuple(sorted((name, values.shape, values.dtype) for name, values in example.arrays.items()))


def open_predictor(
    path: Path | str,
    checkpoint: int | Literal["newest", "best"] = "newest",
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
    metadata, kinds = model.metadata, {Task: TASKS}
    task, info, data = (
        decode(kind, metadata[name], kinds) for kind, name in ((Task, "task"), (DataInfo, "info"), (DataConfig, "data"))
    )
    batch = {inputs["image"]["shape"][0] for inputs in model.inputs}
    [size] = [size if isinstance(size, int) else None for size in batch]
    service = service_of(task, info, data)
    return Predictor(metadata["name"], metadata["step"], service, model.apply, model.weights, size)
