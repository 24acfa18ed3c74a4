"""Exact evaluation: every example of the set counts once, whatever the batch size and the number of devices."""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from ddf_jax.data.config import DataConfig
from ddf_jax.errors import RunError
from ddf_jax.training.devices import InFlight, batch_shares, global_batch, join_local_rows, local_rows
from ddf_jax.training.processes import ending_together, gather_json, wait_for_all_processes
from ddf_jax.training.run import Run
from ddf_jax.training.step import compile_eval_step
from ddf_jax.training.tasks import Scores, Task
from ddf_jax.training.workdir import environment

if TYPE_CHECKING:
    from ddf_jax.data.sources import Examples


@ending_together()
def evaluate(run: Run, data: DataConfig | None = None) -> dict[str, Any]:
    """Scores a run's model on the evaluation split of its own data, or of other data; writes nothing.

    Args:
        run: from `load_run`.
        data: other data of the same kind and classes, such as the recipe's with another `eval_split`. They need no
            split to train on.

    Returns:
        `{"name", "model", "step", "device", …}` and the task's scores, such as `test_accuracy` or `test_rmse`.

    Raises:
        UserError: the data cannot be opened, or do not fit the model.
    """
    scores = make_scorer(run, data)(run.recipe.task.examples())
    return {
        "name": run.recipe.name,
        "model": run.recipe.model.name,
        "step": run.step,
        **scores,
        **environment(run.mesh),
    }


def make_scorer(run: Run, data: DataConfig | None = None) -> "Callable[[Examples], Scores]":
    """A function that scores a run's model on examples of its data, or of other data, by one compiled program.

    Args:
        run: from `load_run`.
        data: as in `evaluate`.

    Raises:
        UserError: the data cannot be opened, or do not fit the model.
    """
    from ddf_jax.data.pipeline import eval_batches
    from ddf_jax.data.sources import describe_evaluation

    recipe, mesh, task, info, config = run.recipe, run.mesh, run.recipe.task, run.info, data or run.recipe.data
    task.check()
    if data is not None:
        info = describe_evaluation(data, task.examples())
        if (info.class_names, info.channels) != (run.info.class_names, run.info.channels):
            raise RunError(f"`data` must have the classes and channels of the run's, {run.info}, got {info}.")
    shares = batch_shares(mesh)
    batch_size = math.ceil(recipe.batch_size / shares) * shares  # any size gives the same score
    eval_step = compile_eval_step(task, info, mesh, run.state, batch_size)
    wait_for_all_processes()

    def score(examples: "Examples") -> Scores:
        batches = eval_batches(
            config,
            examples,
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        with contextlib.closing(batches):
            source = evaluation_source(task, config)
            return evaluate_batches(eval_step, run.state.variables, batches, mesh, task=task, source=source) or {}

    return score


def evaluate_batches(
    eval_step: Callable[[Any, Mapping[str, jax.Array]], Any],
    model_variables: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
    *,
    task: Task,
    source: Any = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scores | None:
    """Evaluates a model on `batches`, each process giving its share; None where `should_stop` asked for it on the way.

    Args:
        eval_step: from `compile_eval_step`.
        model_variables: of the model.
        batches: of this process.
        mesh: the devices of all processes.
        task: the run's.
        source: of the examples, for a task that scores each of them (`evaluation_source`).
        should_stop: asked after each batch.

    Raises:
        RunError: there is no example.
    """
    in_flight, waiting, totals, results = InFlight[Any](), deque[Mapping[str, np.ndarray]](), None, []

    def take(outputs: list[Any]) -> None:
        nonlocal totals
        if not task.per_example:
            totals = _add(totals, outputs)
            return
        for output in outputs:
            results.extend(task.results(waiting.popleft(), join_local_rows(output), source))

    for batch in batches:
        outputs = eval_step(model_variables, global_batch(batch, mesh))
        if task.per_example:
            waiting.append(batch)
            outputs = local_rows(outputs)
        take(in_flight.push(outputs))
        if should_stop():
            return None
    take(in_flight.drain())
    if task.per_example:
        results = [result for share in gather_json(results) for result in share]
        if results:
            return task.score(results, source)
    if totals is None or totals.examples == 0:
        raise RunError("There is no example to evaluate on: the evaluation split is empty.")
    return task.finalize(totals)


def evaluation_source(task: Task, data: DataConfig) -> Any:
    """The source of the evaluation examples, where the task's scores need more of them than their arrays."""
    from ddf_jax.data.sources import open_source

    return open_source(data, task.examples(), "eval") if task.per_example else None


def _add(totals: Any, sums: list[Any]) -> Any:
    """In float64: exact for counts, and sums of batches lose no digit."""
    for batch_sums in sums:
        wide = jax.tree.map(np.float64, batch_sums)
        totals = wide if totals is None else jax.tree.map(np.add, totals, wide)
    return totals
