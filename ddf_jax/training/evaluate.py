"""Exact evaluation: every example of the set counts once, whatever the batch size and the number of devices."""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ddf_jax.data.config import DataConfig
from ddf_jax.errors import RunError
from ddf_jax.training.devices import InFlight, global_batch
from ddf_jax.training.processes import ending_together
from ddf_jax.training.run import Run
from ddf_jax.training.step import compile_eval_step
from ddf_jax.training.tasks import Scores, Task
from ddf_jax.training.workdir import environment


@ending_together()
def evaluate(run: Run, data: DataConfig | None = None) -> dict[str, Any]:
    """Scores a run's model on the evaluation split of its own data, or of other data; writes nothing.

    Args:
        run: from `load_run`.
        data: other data of the same kind and classes, such as the recipe's with another `eval_split`.

    Returns:
        `{"name", "model", "step", "device", …}` and the task's scores, such as `test_accuracy` or `test_rmse`.

    Raises:
        UserError: the data cannot be opened, or do not fit the model.
    """
    from ddf_jax.data.pipeline import eval_batches
    from ddf_jax.data.sources import describe

    recipe, mesh, task, info = run.recipe, run.mesh, run.recipe.task, run.info
    if data is not None:
        info = describe(data, task.examples())
        if (info.class_names, info.channels) != (run.info.class_names, run.info.channels):
            raise RunError(f"`data` must have the classes and channels of the run's, {run.info}, got {info}.")
    batch_size = math.ceil(recipe.batch_size / mesh.size) * mesh.size  # any size gives the same score
    eval_step = compile_eval_step(task, info, mesh, run.state, batch_size)
    batches = eval_batches(
        data or recipe.data,
        task.examples(),
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    with contextlib.closing(batches):
        scores = evaluate_batches(eval_step, run.state.variables, batches, mesh, task=task) or {}
    return {"name": recipe.name, "model": recipe.model.name, "step": run.step, **scores, **environment(mesh)}


def evaluate_batches(
    eval_step: Callable[[Any, Mapping[str, jax.Array]], Any],
    model_variables: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
    *,
    task: Task,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scores | None:
    """Evaluates a model on `batches`, each process giving its share; None where `should_stop` asked for it on the way.

    Raises:
        RunError: there is no example.
    """
    in_flight, totals = InFlight[Any](), None
    for batch in batches:
        totals = _add(totals, in_flight.push(eval_step(model_variables, global_batch(batch, mesh))))
        if should_stop():
            return None
    totals = _add(totals, in_flight.drain())
    if totals is None or totals.examples == 0:
        raise RunError("There is no example to evaluate on: the evaluation split is empty.")
    return task.finalize(totals)


def _add(totals: Any, sums: list[Any]) -> Any:
    """In float64: exact for counts, and sums of batches lose no digit."""
    for batch_sums in sums:
        wide = jax.tree.map(np.float64, batch_sums)
        totals = wide if totals is None else jax.tree.map(np.add, totals, wide)
    return totals
