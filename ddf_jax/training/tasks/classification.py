"""Classification: one label for an image."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import UserError
from ddf_jax.registered import Named
from ddf_jax.training.losses import LOSSES, METRICS, cross_entropy, masked_mean, soft_targets
from ddf_jax.training.mixing import mix_examples
from ddf_jax.training.tasks import Batch, Model, Scores, StepMetrics, Task

if TYPE_CHECKING:
    from ddf_jax.data.sources import Examples


class ClassificationSums(NamedTuple):
    """Sums over the real examples of one batch."""

    loss: jax.Array  # [] float32
    correct: jax.Array  # [] int32
    correct_top5: jax.Array  # [] int32
    examples: jax.Array  # [] int32
    confusion: jax.Array | None = None  # [classes, classes] int32, rows: labels, columns: predictions
    metrics: Mapping[str, jax.Array] = {}  # [] each, of registered metrics


_OWN_SCORES = {"loss", "accuracy", "top5_accuracy", "examples", "confusion"}


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """A loss of smoothed, perhaps mixed labels in training; accuracy, top-5 accuracy and cross entropy in evaluation.

    A batch has `image` [B, H, W, C] float32 and `label` [B] int32. The model is called as `model(image)` and returns
    logits [B, classes].
    """

    label_smoothing: float = 0.0
    """Share of each training label's weight that all classes get in equal parts."""
    loss: Named = "cross_entropy"
    """In training: cross_entropy (softmax), binary_cross_entropy (mean over classes), or a function
    `(logits, targets) -> [B]` of float32 arrays [B, classes]."""
    target_threshold: float | None = None
    """In training a class is 1 where its share of the label is greater, and else 0; for binary_cross_entropy."""
    mixup: float = 0.0
    """α of mixup: two training examples become sums of both; 0: none."""
    cutmix: float = 0.0
    """α of CutMix: a rectangle of a training example comes from another; 0: none. With both each batch draws one."""
    mix_probability: float = 1.0
    """Share of the training batches that are mixed."""
    cutmix_probability: float = 0.5
    """Share of CutMix among them, where mixup is on too."""
    class_weights: tuple[float, ...] = ()
    """A weight for each class; the training loss is the mean over the examples with the weights of their labels."""
    metrics: tuple[Named, ...] = ()
    """Further scores: functions `(logits [B, classes], labels [B]) -> [B]`, averaged over the examples."""
    confusion_matrix: bool = False
    """Whether evaluations also count the predictions for each class: accuracy by class, and a picture."""

    metric: ClassVar[str] = "accuracy"
    model_task: ClassVar[str] = "classification"

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", LOSSES.name(self.loss))
        object.__setattr__(self, "metrics", tuple(map(METRICS.name, self.metrics)))
        if taken := _OWN_SCORES.intersection(map(str, self.metrics)):
            raise UserError(f"`metrics` must have other names than the scores of every evaluation, got {taken.pop()}.")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UserError(f"`label_smoothing` must be in [0, 1), got {self.label_smoothing}.")
        for name in ("mixup", "cutmix"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise UserError(f"`{name}` must be α of a Beta distribution, 0 for none, got {getattr(self, name)}.")
        for name in ("mix_probability", "cutmix_probability", "target_threshold"):
            if not 0.0 <= (getattr(self, name) or 0.0) <= 1.0:
                raise UserError(f"`{name}` must be in [0, 1], got {getattr(self, name)}.")
        if not all(0.0 <= weight < math.inf for weight in self.class_weights):
            raise UserError(f"`class_weights` must be numbers from 0 on, got {self.class_weights}.")

    def check(self, *, training: bool = False) -> None:
        super().check(training=training)
        if training:
            LOSSES.get(self.loss)
        for name in self.metrics:
            METRICS.get(name)

    def check_batch_size(self, batch_size: int) -> None:
        if (self.mixup or self.cutmix) and batch_size % 2:
            raise UserError(f"`batch_size` must be even for mixup and CutMix, got {batch_size}.")

    def examples(self) -> "Examples":
        from ddf_jax.data.examples import LabelledImages

        return LabelledImages()

    def model_options(self, info: DataInfo) -> dict[str, Any]:
        if self.class_weights and len(self.class_weights) != info.num_classes:
            raise UserError(
                f"`class_weights` must have a number for each of the {info.num_classes} classes, got "
                f"{len(self.class_weights)}."
            )
        return {"num_classes": info.num_classes, "in_channels": info.channels}

    def batch_spec(self, info: DataInfo, *, training: bool) -> dict[str, jax.ShapeDtypeStruct]:
        square = (info.image_size, info.image_size)
        height, width = square if training or info.eval_shape is None else info.eval_shape
        return {
            "image": jax.ShapeDtypeStruct((height, width, info.channels), jnp.float32),
            "label": jax.ShapeDtypeStruct((), jnp.int32),
            "mask": jax.ShapeDtypeStruct((), jnp.bool),
        }

    def augmented(self, batch: Batch, key: jax.Array) -> Batch:
        if not (self.mixup or self.cutmix):
            return batch
        return mix_examples(
            batch,
            key,
            mixup=self.mixup,
            cutmix=self.cutmix,
            probability=self.mix_probability,
            cutmix_probability=self.cutmix_probability,
        )

    def step_metrics(self, model: Model, batch: Batch, progress: jax.Array) -> StepMetrics:
        del progress
        logits, labels, mask = model(batch["image"]), batch["label"], batch["mask"]
        classes = logits.shape[-1]
        mix: dict[str, Any] = (
            {"others": batch["other_label"], "share": batch["share"][:, None]} if "share" in batch else {}
        )
        label_shares = soft_targets(labels, classes, **mix)
        targets = soft_targets(labels, classes, smoothing=self.label_smoothing, **mix)
        if self.target_threshold is not None:
            targets = (targets > self.target_threshold).astype(targets.dtype)
        losses = LOSSES.get(self.loss)(logits.astype(jnp.float32), targets)
        return StepMetrics(
            loss=masked_mean(losses, self._weights(label_shares, mask)),
            metric=masked_mean(jnp.take_along_axis(label_shares, logits.argmax(-1)[:, None], 1)[:, 0], mask),
            invalid={
                "pixels that are not finite": ~jnp.all(jnp.isfinite(batch["image"])),
                "labels outside the model's classes": jnp.any((labels < 0) | (labels >= classes)),
            },
        )

    def eval_sums(self, model: Model, batch: Batch) -> ClassificationSums:
        logits, labels, mask = model(batch["image"]), batch["label"], batch["mask"]
        classes = logits.shape[-1]
        _, best = jax.lax.top_k(logits, min(5, classes))
        found = jnp.argmax(logits, axis=-1)
        correct_top5 = jnp.any(best == labels[:, None], axis=-1)
        losses = cross_entropy(logits, soft_targets(labels, classes))
        counted = {"dtype": jnp.int32, "where": mask}
        confusion = None
        if self.confusion_matrix:  # counts of a batch are exact in float32
            rows = jnp.where(mask[:, None], jax.nn.one_hot(labels, classes), 0)
            confusion = jnp.einsum("bl,bp->lp", rows, jax.nn.one_hot(found, classes)).astype(jnp.int32)
        return ClassificationSums(
            loss=jnp.sum(losses, where=mask),
            correct=jnp.sum(found == labels, **counted),
            correct_top5=jnp.sum(correct_top5, **counted),
            examples=jnp.sum(mask, dtype=jnp.int32),
            confusion=confusion,
            metrics={str(name): self._sum(name, logits, labels, mask) for name in self.metrics},
        )

    def finalize(self, sums: ClassificationSums) -> Scores:
        examples = float(sums.examples)

        def mean(value: Any) -> float | None:
            return float(value) / examples if math.isfinite(value) else None

        scores: Scores = {
            "test_loss": mean(sums.loss),
            "test_accuracy": mean(sums.correct),
            "test_top5_accuracy": mean(sums.correct_top5),
            **{f"test_{name}": mean(value) for name, value in sums.metrics.items()},
            "test_examples": int(examples),
        }
        if sums.confusion is not None:
            scores["test_confusion"] = [[int(count) for count in row] for row in sums.confusion]
        return scores

    def predict(self, model: Model, batch: Batch) -> jax.Array:
        """Probabilities of the classes, float32 [B, classes]."""
        return jax.nn.softmax(model(batch["image"]).astype(jnp.float32))

    def summary_line(self, scores: Mapping[str, Any]) -> str:
        loss, further = scores["test_loss"], [(name, scores.get(f"test_{name}")) for name in self.metrics]
        return (
            f"test accuracy {scores['test_accuracy']:.2%}, top-5 {scores['test_top5_accuracy']:.2%}, test loss "
            f"{'not finite' if loss is None else f'{loss:.4f}'}"
            + "".join(f", {name} {'not finite' if score is None else f'{score:.4g}'}" for name, score in further)
            + f" on {scores['test_examples']} examples"
        )

    def score_table(self, scores: Mapping[str, Any], info: DataInfo) -> str:
        from ddf_jax.training.confusion import class_table

        return class_table(scores["test_confusion"], info.class_names) if "test_confusion" in scores else ""

    def draw_scores(self, scores: Mapping[str, Any], info: DataInfo) -> bytes | None:
        """The confusion matrix as PNG, where it was counted."""
        from ddf_jax.training.confusion import draw_confusion

        return draw_confusion(scores["test_confusion"], info.class_names) if "test_confusion" in scores else None

    def _sum(self, name: Named, logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
        """Of a registered metric over the real examples."""
        values = METRICS.get(name)(logits.astype(jnp.float32), labels)
        return jnp.sum(values, where=mask, dtype=jnp.float32)

    def _weights(self, label_shares: jax.Array, mask: jax.Array) -> jax.Array:
        """Of each example, [B]: `sum over c of class_weights[c] · label_shares[b, c]`; of padding 0."""
        if not self.class_weights:
            return mask
        return jnp.where(mask, label_shares @ jnp.asarray(self.class_weights, jnp.float32), 0)
