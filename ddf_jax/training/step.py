"""The two pure functions a run repeats: one training step, and the counts of one evaluation batch.

Under `jax.jit` with a batch split over the mesh both see the global batch: BatchNorm's statistics and every mean are
over all devices and processes, whatever their number.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ddf_jax.training.losses import masked_mean, softmax_cross_entropy
from ddf_jax.training.state import ModelState, TrainState, Variables

Batch = Mapping[str, jax.Array]
"""`image` [B, H, W, C] float32, `label` [B] int32, `mask` [B] bool (false: padding)."""


class StepReport(NamedTuple):
    """What one training step says of itself; small, and fetched steps later so that the devices never wait."""

    loss: jax.Array  # [], of this batch, before the update
    accuracy: jax.Array  # [], of this batch, before the update
    learning_rate: jax.Array  # []
    gradient_squares: jax.Array  # [parameters], squared norm of each parameter's gradient, in `jax.tree.leaves` order
    images_finite: jax.Array  # [] bool
    labels_valid: jax.Array  # [] bool


class EvalCounts(NamedTuple):
    """Sums over the real examples of one batch."""

    loss: jax.Array  # [] float32
    correct: jax.Array  # [] int32
    correct_top5: jax.Array  # [] int32
    examples: jax.Array  # [] int32


def train_step(
    state: TrainState, batch: Batch, *, learning_rate: optax.Schedule, label_smoothing: float
) -> tuple[Variables, StepReport]:
    """One update of every parameter, statistic and random counter.

    `learning_rate` is the schedule inside the optimizer, here only to be reported.
    """
    nodes = nnx.merge(*state)
    model, optimizer = nodes["model"], nodes["optimizer"]
    model.train()

    def objective(model: nnx.Module) -> tuple[jax.Array, jax.Array]:
        logits = model(batch["image"])
        losses = softmax_cross_entropy(logits, batch["label"], label_smoothing=label_smoothing)
        return masked_mean(losses, batch["mask"]), logits

    (loss, logits), gradients = nnx.value_and_grad(objective, has_aux=True)(model)
    report = StepReport(
        loss=loss,
        accuracy=masked_mean((jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32), batch["mask"]),
        learning_rate=jnp.asarray(learning_rate(optimizer.step[...])),
        gradient_squares=jnp.stack([jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)]),
        images_finite=jnp.all(jnp.isfinite(batch["image"])),
        labels_valid=jnp.all((batch["label"] >= 0) & (batch["label"] < logits.shape[-1])),
    )
    optimizer.update(model, gradients)
    return nnx.to_pure_dict(nnx.state(nodes)), report


def eval_step(state: ModelState, batch: Batch) -> EvalCounts:
    """Counts the real examples of a batch, and those the model gets right. Padding counts for nothing."""
    model = nnx.merge(*state)
    model.eval()
    logits, labels, mask = model(batch["image"]), batch["label"], batch["mask"]
    _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
    correct = jnp.argmax(logits, axis=-1) == labels
    correct_top5 = jnp.any(best == labels[:, None], axis=-1)
    losses = softmax_cross_entropy(logits, labels)
    return EvalCounts(
        loss=jnp.sum(losses, where=mask),
        correct=jnp.sum(correct & mask, dtype=jnp.int32),
        correct_top5=jnp.sum(correct_top5 & mask, dtype=jnp.int32),
        examples=jnp.sum(mask, dtype=jnp.int32),
    )
