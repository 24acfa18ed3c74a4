"""Classification: one label for an image."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import UserError
from ddf_jax.training.tasks import Batch, Model, Scores, StepMetrics, Task

if TYPE_CHECKING:
    from ddf_jax.data.sources import Examples


class ClassificationSums(NamedTuple):
    """Sums over the real examples of one batch."""

    loss: jax.Array  # [] float32
    correct: jax.Array  # [] int32
    correct_top5: jax.Array  # [] int32
    examples: jax.Array  # [] int32


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """Cross entropy of smoothed labels in training; accuracy, top-5 accuracy and the plain loss in evaluation.

    A batch has `image` [B, H, W, C] float32 and `label` [B] int32. The model is called as `model(image)` and returns
    logits [B, classes].
    """

    label_smoothing: float = 0.0
    """Share of each training label's weight that all classes get in equal parts."""

    metric: ClassVar[str] = "accuracy"
    model_task: ClassVar[str] = "classification"

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UserError(f"`label_smoothing` must be in [0, 1), got {self.label_smoothing}.")

    def examples(self) -> "Examples":
        from ddf_jax.data.examples import LabelledImages

        return LabelledImages()

    def model_options(self, info: DataInfo) -> dict[str, Any]:
        return {"num_classes": info.num_classes, "in_channels": info.channels}

    def batch_spec(self, info: DataInfo, *, training: bool) -> dict[str, jax.ShapeDtypeStruct]:
        del training
        return {
            "image": jax.ShapeDtypeStruct((info.image_size, info.image_size, info.channels), jnp.float32),
            "label": jax.ShapeDtypeStruct((), jnp.int32),
            "mask": jax.ShapeDtypeStruct((), jnp.bool),
        }

    def step_metrics(self, model: Model, batch: Batch, progress: jax.Array) -> StepMetrics:
        del progress
        logits, labels, mask = model(batch["image"]), batch["label"], batch["mask"]
        losses = softmax_cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return StepMetrics(
            loss=masked_mean(losses, mask),
            metric=masked_mean((jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32), mask),
            invalid={
                "pixels that are not finite": ~jnp.all(jnp.isfinite(batch["image"])),
                "labels outside the model's classes": jnp.any((labels < 0) | (labels >= logits.shape[-1])),
            },
        )

    def eval_sums(self, model: Model, batch: Batch) -> ClassificationSums:
        logits, labels, mask = model(batch["image"]), batch["label"], batch["mask"]
        _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
        correct = jnp.argmax(logits, axis=-1) == labels
        correct_top5 = jnp.any(best == labels[:, None], axis=-1)
        losses = softmax_cross_entropy(logits, labels)
        return ClassificationSums(
            loss=jnp.sum(losses, where=mask),
            correct=jnp.sum(correct & mask, dtype=jnp.int32),
            correct_top5=jnp.sum(correct_top5 & mask, dtype=jnp.int32),
            examples=jnp.sum(mask, dtype=jnp.int32),
        )

    def finalize(self, sums: ClassificationSums) -> Scores:
        loss, correct, correct_top5, examples = map(float, sums)
        return {
            "test_loss": loss / examples if math.isfinite(loss) else None,
            "test_accuracy": correct / examples,
            "test_top5_accuracy": correct_top5 / examples,
            "test_examples": int(examples),
        }

    def predict(self, model: Model, batch: Batch) -> jax.Array:
        """Probabilities of the classes, float32 [B, classes]."""
        return jax.nn.softmax(model(batch["image"]).astype(jnp.float32))

    def summary_line(self, scores: Mapping[str, Any]) -> str:
        loss = scores["test_loss"]
        return (
            f"test accuracy {scores['test_accuracy']:.2%}, top-5 {scores['test_top5_accuracy']:.2%}, test loss "
            f"{'not finite' if loss is None else f'{loss:.4f}'} on {scores['test_examples']} examples"
        )


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0) -> jax.Array:
    """Cross entropy of each example against its smoothed label.

    `loss[b] = - sum over c of q[b, c] · log softmax(logits[b])[c]`, with `q = (1 - ε) · onehot(labels) + ε / classes`
    and ε = `label_smoothing` (Szegedy et al., "Rethinking the Inception Architecture", 2016). Computed in float32.

    Args:
        logits: [B, classes], any floating dtype.
        labels: [B] integers in `0 … classes - 1`.
        label_smoothing: ε.

    Returns:
        [B] float32.

    >>> softmax_cross_entropy(jnp.zeros((1, 10)), jnp.array([3]))
    Array([2.3025851], dtype=float32)
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), optax.smooth_labels(targets, label_smoothing))


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of `values` [B] where `mask` [B] is true; 0 where it is true nowhere."""
    weights = mask.astype(values.dtype)
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)
