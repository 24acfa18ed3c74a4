"""Exact evaluation: every example of the set counts once, whatever the batch size and the number of devices."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ddf_jax.training.errors import RunError
from ddf_jax.training.inflight import InFlight
from ddf_jax.training.mesh import global_batch
from ddf_jax.training.tasks.task import Scores, Task


def evaluate_batches(
    eval_step: Callable[[Any, Mapping[str, jax.Array]], Any],
    model_variables: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
    *,
    task: Task,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scores | None:
    """Evaluates a model on `batches`, each process giving its share; None where `should_stop` said so on the way.

    Raises:
        RunError: there is no example.
    """
    in_flight, totals = InFlight[Any](), None
    for batch in batches:
        totals = _sum(totals, in_flight.push(eval_step(model_variables, global_batch(batch, mesh))))
        if should_stop():
            return None
    totals = _sum(totals, in_flight.drain())
    if totals is None or totals.examples == 0:
        raise RunError("There is no example to evaluate on: the evaluation split is empty.")
    return task.scores(totals)


def _sum(totals: Any, counts: list[Any]) -> Any:
    """In float64: exact for counts, and sums of batches lose no digit."""
    for count in counts:
        wide = jax.tree.map(np.float64, count)
        totals = wide if totals is None else jax.tree.map(np.add, totals, wide)
    return totals
