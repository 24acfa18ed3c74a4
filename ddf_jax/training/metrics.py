"""Exact evaluation: every example of the set counts once, whatever the batch size and the number of devices."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ddf_jax.training.errors import RunError
from ddf_jax.training.inflight import InFlight
from ddf_jax.training.mesh import global_batch
from ddf_jax.training.step import EvalCounts


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Means over a set of examples. Smoothing of labels does not enter the loss."""

    test_loss: float | None  # None where it is not finite, which JSON cannot say
    test_accuracy: float
    test_top5_accuracy: float
    test_examples: int


def evaluate_batches(
    eval_step: Callable[[Any, Mapping[str, jax.Array]], EvalCounts],
    model_variables: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    mesh: Mesh,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Evaluates a model on `batches`, each process giving its share; None where `should_stop` said so on the way.

    Raises:
        RunError: there is no example.
    """
    in_flight = InFlight[EvalCounts]()
    total = np.zeros(len(EvalCounts._fields), np.float64)  # exact for counts, and sums of batches lose no digit

    def add(finished: list[EvalCounts]) -> None:
        for counts in finished:
            total[:] += np.asarray(counts, np.float64)

    for batch in batches:
        add(in_flight.push(eval_step(model_variables, global_batch(batch, mesh))))
        if should_stop():
            return None
    add(in_flight.drain())
    loss, correct, correct_top5, examples = total.tolist()
    if examples == 0:
        raise RunError("There is no example to evaluate on: the evaluation split is empty.")
    mean_loss = loss / examples if math.isfinite(loss) else None
    return Evaluation(mean_loss, correct / examples, correct_top5 / examples, int(examples))
