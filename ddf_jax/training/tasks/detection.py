"""Detection: objects as boxes, and perhaps as masks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.data.canvas import check_canvas
from ddf_jax.data.info import DataInfo
from ddf_jax.detection.annotations import Detections, Truths
from ddf_jax.detection.pasting import paste_masks
from ddf_jax.detection.rle import encode_mask, rle_to_json
from ddf_jax.training.tasks import Batch, Scores, StepMetrics, Task

if TYPE_CHECKING:
    from ddf_jax.analysis import coco_ap
    from ddf_jax.data.examples import DetectionImages

Found = dict[str, Any]
"""The objects of one image as JSON has them: `image_id`, `boxes`, `scores`, `labels` and `masks` or None."""


@dataclasses.dataclass(frozen=True)
class Detection(Task):
    """The losses of a detector in training; COCO's average precision in evaluation.

    A batch has `image` [B, H, W, C] float32, 0 beyond `size` [B, 2] int32, and the arrays that `PadObjects` describes.
    The model is called as `model(image, size)` and returns `Detections`; `model.loss` gives its losses.
    """

    canvas: tuple[int, int] = (800, 1344)
    """Height and width of the arrays, multiples of 32, into which every image is resized."""
    short_side: int | None = None
    """The most that the shorter side of an image may have; default: that of the canvas."""
    long_side: int | None = None
    """Likewise the longer side."""
    max_objects: int = 100
    """Objects of an image that there is room for."""
    masks: bool = False
    """Whether masks are learned and scored; the model must have a mask head."""
    semantic: bool = False
    """Whether the classes of all pixels are learned too, for a model with a semantic branch (HTC)."""
    empty_images: bool = False
    """Whether images of a folder without an annotation are trained on."""
    upright: bool = False
    """Whether upright images have a canvas with the sides exchanged; a batch then has images of one orientation."""

    metric: ClassVar[str] = "box_ap"
    model_task: ClassVar[str] = "detection"
    inputs: ClassVar[tuple[str, ...]] = ("image", "size")
    used_by: ClassVar[str] = "`ddf detect` or `ddf_jax.detect`"
    per_example: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("pycocotools",)
    splits_height: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "canvas", tuple(self.canvas))
        sides = {"short_side": self.short_side, "long_side": self.long_side}
        check_canvas(self.canvas, upright=self.upright, max_objects=self.max_objects, **sides)

    def examples(self) -> "DetectionImages":
        from ddf_jax.data.examples import DetectionImages

        return DetectionImages(
            canvas=self.canvas,
            short_side=self.short_side,
            long_side=self.long_side,
            max_objects=self.max_objects,
            masks=self.masks,
            semantic="all" if self.semantic else None,
            empty_images=self.empty_images,
            upright=self.upright,
        )

    def variants(self) -> Sequence["Detection"]:
        if not self.upright:
            return (self,)
        lying = dataclasses.replace(self, upright=False)
        return lying, dataclasses.replace(lying, canvas=self.canvas[::-1])

    def variant(self, height: int, width: int) -> "Detection":
        """The one of the `variants` that an image of this size is in."""
        return self.variants()[self.upright and height > width]

    def model_options(self, info: DataInfo) -> dict[str, Any]:
        options = {"num_classes": info.num_classes, "in_channels": info.channels}
        return options | ({"num_semantic": info.num_classes + len(info.stuff_names)} if self.semantic else {})

    def batch_spec(self, info: DataInfo, *, training: bool) -> dict[str, jax.ShapeDtypeStruct]:
        (height, width), count = self.canvas, self.max_objects
        spec = {
            "image": ((height, width, info.channels), jnp.float32),
            "size": ((2,), jnp.int32),
            "original_size": ((2,), jnp.int32),
            "image_id": ((), jnp.int32),
            "boxes": ((count, 4), jnp.float32),
            "labels": ((count,), jnp.int32),
            "known": ((count,), jnp.bool),
            "mask": ((), jnp.bool),
        }
        if training and self.masks:
            spec["masks"] = (count, height, -(-width // 8)), jnp.uint8
        if training and self.has_semantic:
            spec["semantic"] = (height, width), jnp.uint8
        return {name: jax.ShapeDtypeStruct(*kind) for name, kind in spec.items()}

    @property
    def has_semantic(self) -> bool:
        """Whether training examples have a map of classes."""
        return self.semantic

    def step_metrics(self, model: Any, batch: Batch, progress: jax.Array) -> StepMetrics:
        from ddf_jax.models.detection_networks import total_loss  # Flax is not needed to read a recipe

        del progress
        truths = Truths(batch["boxes"], batch["labels"], batch["known"], batch.get("masks"), batch.get("semantic"))
        losses = model.loss(batch["image"], batch["size"], truths)
        wrong = (batch["labels"] < 0) | (batch["labels"] >= model.config.num_classes)
        return StepMetrics(
            loss=total_loss(losses),
            metric=None,
            invalid={
                "pixels that are not finite": ~jnp.all(jnp.isfinite(batch["image"])),
                "labels outside the model's classes": jnp.any(wrong & batch["known"]),
            },
            losses={name: loss.sum() for name, loss in losses.items()},
        )

    def eval_sums(self, model: Any, batch: Batch) -> Detections:
        return model(batch["image"], batch["size"])

    def predict(self, model: Any, batch: Batch) -> Any:
        """`Detections` in pixels of the batch's images."""
        return model(batch["image"], batch["size"])

    def results(self, batch: Mapping[str, np.ndarray], outputs: Any, source: Any) -> list[Found]:
        """The objects of each real example of a batch, in pixels of its original image."""
        del source
        found = []
        for row in np.flatnonzero(batch["mask"]).tolist():
            objects = of_original(outputs, row, batch["size"][row], batch["original_size"][row])
            found.append({"image_id": int(batch["image_id"][row]), **objects})
        return found

    def objects(self, outputs: Any, row: int, size: np.ndarray, original: np.ndarray, info: DataInfo) -> Found:
        """The objects of one image of a batch as `of_original` gives them, and `panoptic`, its segments or None.

        Args:
            outputs: `Detections` of a batch, on the host.
            row: the image's.
            size: its height and width in the batch.
            original: before it was resized.
            info: the data that the model was trained on.
        """
        del info
        return of_original(outputs, row, size, original) | {"panoptic": None}

    def score(self, results: Sequence[Found], source: Any) -> Scores:
        from ddf_jax.analysis.coco_ap import METRICS, average_precision

        found = {result["image_id"]: as_detections(result) for result in results}
        truths = {}
        for index in range(len(source)):
            image, truth = source.truth(index)
            if image in found:
                truths[image] = truth
        scores: Scores = {}
        for kind in ("box", "mask") if self.masks else ("box",):
            precision = average_precision(truths, found, num_classes=len(source.class_names), kind=kind)
            scores |= {f"test_{kind}_{name}": precision.metrics[name] for name in METRICS}
        return scores | {"test_examples": len(found)}

    def summary_line(self, scores: Mapping[str, Any]) -> str:
        kinds = ("box", "mask") if self.masks else ("box",)
        parts = [
            f"{kind} AP {_percent(scores[f'test_{kind}_ap'])}, AP50 {_percent(scores[f'test_{kind}_ap50'])}"
            for kind in kinds
        ]
        return f"test {'; '.join(parts)} on {scores['test_examples']} images"

    def score_table(self, scores: Mapping[str, Any], info: DataInfo) -> str:
        del info
        from ddf_jax.analysis.coco_ap import METRICS

        kinds = ("box", "mask") if self.masks else ("box",)
        rows = {kind: [scores[f"test_{kind}_{name}"] for name in METRICS] for kind in kinds}
        return percent_table([name.upper().replace("_", " ") for name in METRICS], rows)

    def draw(self, batch: Mapping[str, np.ndarray], prediction: Any, info: DataInfo) -> bytes:
        from ddf_jax.training.detection_picture import draw_detections

        def find(row: int) -> Found:
            return of_original(prediction, row, batch["size"][row], batch["size"][row])

        return draw_detections(batch, find, info)


def of_original(outputs: Any, row: int, size: np.ndarray, original: np.ndarray) -> Found:
    """The objects of one image of a batch in pixels of the original image.

    Args:
        outputs: `Detections` of a batch, on the host.
        row: the image's.
        size: its height and width in the batch.
        original: before it was resized.
    """
    count = int(outputs.number[row])
    scale = (np.asarray(original, np.float64) / size)[[1, 0, 1, 0]]
    boxes = outputs.boxes[row][:count] * scale.astype(outputs.boxes.dtype)
    masks = None
    if outputs.masks is not None:
        drawn, (height, width) = outputs.masks[row][:count], map(int, original)
        parts = [slice(place, place + 1) for place in range(count)]  # one at a time: each takes the image's size
        pasted = (paste_masks(drawn[part], boxes[part], height, width)[0] for part in parts)
        masks = [rle_to_json(encode_mask(mask)) for mask in pasted]
    scores, labels = outputs.scores[row][:count], outputs.labels[row][:count]
    return {"boxes": boxes.tolist(), "scores": scores.tolist(), "labels": labels.tolist(), "masks": masks}


def as_detections(found: Found) -> "coco_ap.Detections":
    """What the evaluator takes."""
    from ddf_jax.analysis.coco_ap import Detections as OfImage

    boxes = np.asarray(found["boxes"], np.float64).reshape(-1, 4)
    return OfImage(boxes, np.asarray(found["scores"]), np.asarray(found["labels"], np.int64), found["masks"] or ())


def percent_table(columns: Sequence[str], rows: Mapping[str, Sequence[float | None]]) -> str:
    """Scores in percent, - for one that is none.

    >>> print(percent_table(["AP", "AP SMALL"], {"box": [0.412, None]}))
           AP  AP SMALL
    box  41.2         -
    """
    edge = max(map(len, rows))
    header = " " * edge + "".join(f"  {column:>4}" for column in columns)
    lines = [
        f"{name:{edge}}"
        + "".join(
            f"  {'-' if score is None else f'{100 * score:.1f}':>{max(4, len(column))}}"
            for column, score in zip(columns, values, strict=True)
        )
        for name, values in rows.items()
    ]
    return "\n".join([header, *lines])


def _percent(score: float | None) -> str:
    return "none" if score is None else f"{score:.1%}"
