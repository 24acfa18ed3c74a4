"""The shapes of a run's batches, and a compiled program for each of them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from ddf_jax.data.info import DataInfo
from ddf_jax.training.devices import batch_split
from ddf_jax.training.tasks import Batch, Task

AbstractBatch = dict[str, jax.ShapeDtypeStruct]


def abstract_batches(task: Task, info: DataInfo, mesh: Mesh, batch_size: int, *, training: bool) -> list[AbstractBatch]:
    """Shapes, dtypes and shardings of each kind of global batch."""
    return [
        {
            name: jax.ShapeDtypeStruct((batch_size, *example.shape), example.dtype, sharding=batch_split(mesh))
            for name, example in variant.batch_spec(info, training=training).items()
        }
        for variant in task.variants()
    ]


def compile_each(
    compile_for: Callable[[AbstractBatch], Callable[[Any, Batch], Any]], batches: list[AbstractBatch]
) -> Callable[[Any, Batch], Any]:
    """`(variables, batch) -> …`, compiled for each kind of batch; where there is one, the program itself."""
    programs = {_shapes(batch): compile_for(batch) for batch in batches}
    if len(programs) == 1:
        return next(iter(programs.values()))
    return lambda variables, batch: programs[_shapes(batch)](variables, batch)


def _shapes(batch: Mapping[str, Any]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, batch[name].shape) for name in sorted(batch))
