"""The pure functions a run repeats: one training step, the counts of one evaluation batch, and what to draw of one.

Under `jax.jit` with a batch split over the mesh they see the global batch: BatchNorm's statistics and every mean are
over all devices and processes, whatever their number.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ddf_jax.training.state import ModelState, TrainState, Variables
from ddf_jax.training.tasks.task import Batch, Outcome, Task


class StepReport(NamedTuple):
    """What one training step says of itself; small, and fetched steps later so that the devices never wait."""

    loss: jax.Array  # [], of this batch, before the update
    quality: jax.Array  # [], of this batch, before the update; the task says what it is
    learning_rate: jax.Array  # []
    gradient_squares: jax.Array  # [parameters], squared norm of each parameter's gradient, in `jax.tree.leaves` order
    faults: dict[str, jax.Array]  # what the batch must not hold -> [] bool, whether it does


def train_step(
    state: TrainState, batch: Batch, *, task: Task, learning_rate: optax.Schedule, total_steps: int
) -> tuple[Variables, StepReport]:
    """One update of every parameter, statistic and random counter.

    `learning_rate` is the schedule inside the optimizer, here only to be reported.
    """
    nodes = nnx.merge(*state)
    model, optimizer = nodes["model"], nodes["optimizer"]
    model.train()

    progress = optimizer.step[...] / total_steps

    def objective(model: nnx.Module) -> tuple[jax.Array, Outcome]:
        outcome = task.outcome(model, batch, progress)
        return outcome.loss, outcome

    (loss, outcome), gradients = nnx.value_and_grad(objective, has_aux=True)(model)
    report = StepReport(
        loss=loss,
        quality=outcome.quality,
        learning_rate=jnp.asarray(learning_rate(optimizer.step[...])),
        gradient_squares=jnp.stack([jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)]),
        faults=outcome.faults,
    )
    optimizer.update(model, gradients)
    return nnx.to_pure_dict(nnx.state(nodes)), report


def eval_step(state: ModelState, batch: Batch, *, task: Task) -> Any:
    """What the task counts of the real examples of a batch. Padding counts for nothing."""
    return task.count(_evaluated(state), batch)


def answer_step(state: ModelState, batch: Batch, *, task: Task) -> jax.Array:
    """What the task draws of the model's answers to a batch."""
    return task.answer(_evaluated(state), batch)


def _evaluated(state: ModelState) -> nnx.Module:
    model = nnx.merge(*state)
    model.eval()
    return model
