"""The task of naming what an image shows."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.data.sources import DataInfo
from ddf_jax.training.losses import masked_mean, softmax_cross_entropy
from ddf_jax.training.tasks.task import Batch, Outcome, Scores


class EvalCounts(NamedTuple):
    """Sums over the real examples of one batch."""

    loss: jax.Array  # [] float32
    correct: jax.Array  # [] int32
    correct_top5: jax.Array  # [] int32
    examples: jax.Array  # [] int32


@dataclasses.dataclass(frozen=True)
class Classification:
    """Cross entropy of smoothed labels in training; accuracy, top-5 accuracy and the plain loss in evaluation.

    A batch's `label` is [B] int32.
    """

    label_smoothing: float = 0.0
    quality = "accuracy"
    draws = False

    def model_options(self, info: DataInfo) -> dict[str, Any]:
        return {"num_classes": info.num_classes, "in_channels": info.channels}

    def shapes(self, info: DataInfo, *, training: bool) -> dict[str, tuple[tuple[int, ...], Any]]:
        del training
        image = (info.image_size, info.image_size, info.channels)
        return {"image": (image, jnp.float32), "label": ((), jnp.int32), "mask": ((), jnp.bool)}

    def outcome(self, model: Any, batch: Batch, progress: jax.Array) -> Outcome:
        del progress
        logits, labels, mask = model(batch["image"]), batch["label"], batch["mask"]
        losses = softmax_cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return Outcome(
            loss=masked_mean(losses, mask),
            quality=masked_mean((jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32), mask),
            faults={
                "pixels that are not finite": ~jnp.all(jnp.isfinite(batch["image"])),
                "labels outside the model's classes": jnp.any((labels < 0) | (labels >= logits.shape[-1])),
            },
        )

    def count(self, model: Any, batch: Batch) -> EvalCounts:
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

    def scores(self, totals: EvalCounts) -> Scores:
        loss, correct, correct_top5, examples = map(float, totals)
        return {
            "test_loss": loss / examples if math.isfinite(loss) else None,
            "test_accuracy": correct / examples,
            "test_top5_accuracy": correct_top5 / examples,
            "test_examples": int(examples),
        }

    def progress(self, loss: float, quality: float) -> str:
        del quality
        return f"loss {loss:.4f}"

    def headline(self, scores: Mapping[str, Any]) -> str:
        return f"test accuracy {scores['test_accuracy']:.2%}"

    def details(self, scores: Mapping[str, Any]) -> str:
        loss = scores["test_loss"]
        return (
            f"top-5 {scores['test_top5_accuracy']:.2%}, test loss {'not finite' if loss is None else f'{loss:.4f}'} on "
            f"{scores['test_examples']} examples"
        )

    def answer(self, model: Any, batch: Batch) -> jax.Array:
        return model(batch["image"])

    def draw(self, batch: Mapping[str, np.ndarray], answer: np.ndarray) -> bytes:
        raise NotImplementedError("A classification has no picture.")
