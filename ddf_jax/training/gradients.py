"""Loss and gradients of a batch, whole or of its parts one after the other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ddf_jax.training.tasks import Batch, StepMetrics, Task

Gathered = Callable[[Any], Any]
"""Makes the sharding of the parameters that of their use, and that of their gradients with it."""


def loss_and_gradients(
    model: nnx.Module,
    trained: Any,
    batch: Batch,
    *,
    task: Task,
    progress: jax.Array,
    scale: jax.Array | None = None,
    microbatches: int = 1,
    gathered: Gathered = lambda parameters: parameters,
) -> tuple[StepMetrics, Any]:
    """The metrics of a batch and the gradients of its loss; statistics and random counters of the model move on.

    With microbatches m the batch is taken in m parts of as many examples, of which memory holds one at a time: loss,
    metrics and gradients are the means over the parts. Where the loss is a mean over the examples, these are the
    gradients of the whole batch, but for BatchNorm, which takes its statistics from each part and updates the running
    ones m times.

    Args:
        model: in training mode.
        trained: the filter of Flax for the parameters that are trained.
        batch: arrays [B, …], B a multiple of m.
        task: the run's.
        progress: [], the share of steps taken.
        scale: [], a factor of the loss while it is differentiated; the gradients have it no more.
        microbatches: m.
        gathered: applied to the parameters before they are used.

    Returns:
        The metrics and the gradients, a state of Flax like that of the trained parameters.
    """
    structure, parameters, rest = nnx.split(model, trained, ...)

    def objective(parameters: Any, rest: Any, part: Batch) -> tuple[jax.Array, tuple[StepMetrics, Any]]:
        rest = jax.tree.map(lambda leaf: leaf, rest)  # new variables, which this trace may change
        model: Any = nnx.merge(structure, gathered(parameters), rest)
        metrics = task.step_metrics(model, part, progress)
        loss = metrics.loss if scale is None else metrics.loss * scale.astype(metrics.loss.dtype)
        return loss, (metrics, nnx.split(model, trained, ...)[2])

    differentiate = jax.grad(objective, has_aux=True)
    if microbatches == 1:
        gradients, (metrics, rest) = differentiate(parameters, rest, batch)
    else:

        def add(carry: tuple[Any, Any], part: Batch) -> tuple[tuple[Any, Any], StepMetrics]:
            total, rest = carry
            gradients, (metrics, rest) = differentiate(parameters, rest, part)
            return (jax.tree.map(jnp.add, total, gradients), rest), metrics

        zeros = jax.tree.map(jnp.zeros_like, parameters)
        (total, rest), of_parts = jax.lax.scan(add, (zeros, rest), split_batch(batch, microbatches))
        gradients = jax.tree.map(lambda leaf: leaf / microbatches, total)
        metrics = StepMetrics(
            loss=of_parts.loss.mean(),
            metric=None if of_parts.metric is None else of_parts.metric.mean(),
            invalid={name: found.any() for name, found in of_parts.invalid.items()},
            losses={name: part.mean() for name, part in of_parts.losses.items()},
        )
    nnx.update(model, rest)
    if scale is not None:
        gradients = jax.tree.map(lambda leaf: leaf / scale.astype(leaf.dtype), gradients)
    return metrics, gradients


def split_batch(batch: Batch, parts: int) -> dict[str, jax.Array]:
    """Arrays [B, …] as [parts, B / parts, …]: part i has the examples i, i + parts, …; each device keeps its own.

    >>> split_batch({"label": jnp.arange(6)}, 2)["label"].tolist()
    [[0, 2, 4], [1, 3, 5]]
    """
    return {
        name: jnp.swapaxes(array.reshape(len(array) // parts, parts, *array.shape[1:]), 0, 1)
        for name, array in batch.items()
    }
