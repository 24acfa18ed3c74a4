"""Panoptic segmentation: every pixel belongs to an object or to a class of stuff."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ddf_jax.analysis.panoptic_quality import VOID, PanopticQuality, Segments
from ddf_jax.data.info import DataInfo
from ddf_jax.detection.panoptic import INSTANCE, FusionSettings, panoptic_map, semantic_map
from ddf_jax.detection.rle import decode_rle, encode_mask, rle_to_json
from ddf_jax.training.tasks import Scores
from ddf_jax.training.tasks.detection import Detection, percent_table

if TYPE_CHECKING:
    from ddf_jax.data.examples import DetectionImages


@dataclasses.dataclass(frozen=True)
class Panoptic(Detection):
    """The losses of Panoptic FPN in training; panoptic quality in evaluation.

    A batch is that of `Detection` with masks and a map of stuff.
    """

    overlap: float = 0.5
    """An object is left out where more than this share of its mask is covered by better ones."""
    stuff_area: int = 4096
    """Pixels of a class of stuff, below which it is left out."""
    masks: bool = True

    metric: ClassVar[str] = "pq"
    has_semantic: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleMethodOverride]

    def examples(self) -> "DetectionImages":
        return dataclasses.replace(super().examples(), semantic="stuff")

    def model_options(self, info: DataInfo) -> dict[str, Any]:
        return super().model_options(info) | {"num_stuff": len(info.stuff_names)}

    @property
    def fusion(self) -> FusionSettings:
        """The settings of the fusion."""
        return FusionSettings(self.overlap, self.stuff_area)

    def results(self, batch: Mapping[str, np.ndarray], outputs: Any, source: Any) -> list[dict[str, Any]]:
        found, things = super().results(batch, outputs, source), len(source.class_names)
        for row, result in zip(np.flatnonzero(batch["mask"]).tolist(), found, strict=True):
            ids = self.panoptic_ids(outputs, row, batch["size"][row], batch["original_size"][row], result, things)
            numbers = [int(number) for number in np.unique(ids) if number]
            segments = [{"id": number, "mask": rle_to_json(encode_mask(ids == number))} for number in numbers]
            result["segments"] = segments
        return found

    def objects(self, outputs: Any, row: int, size: np.ndarray, original: np.ndarray, info: DataInfo) -> dict[str, Any]:
        found = super().objects(outputs, row, size, original, info)
        ids = self.panoptic_ids(outputs, row, size, original, found, info.num_classes)
        return found | {"panoptic": ids.astype(np.int32)}

    def panoptic_ids(
        self, outputs: Any, row: int, size: np.ndarray, original: np.ndarray, found: Mapping[str, Any], num_things: int
    ) -> np.ndarray:
        """The segment of each pixel of the original image [H, W]: class + 1000 · number of the object, 0 for none.

        Args:
            outputs: `Detections` of a batch, on the host.
            row: the image's.
            size: its height and width in the batch.
            original: before it was resized.
            found: its objects (`of_original`).
            num_things: classes of objects.
        """
        height, width = map(int, original)
        logits, num_stuff = outputs.semantic[row], outputs.semantic.shape[-1] - 1
        canvas = self.variant(height, width).canvas
        semantic = semantic_map(logits, canvas, (int(size[0]), int(size[1])), (height, width))
        drawn = [decode_rle(mask, (height, width)) for mask in found["masks"]]
        masks = np.stack(drawn) if drawn else np.zeros((0, height, width), bool)
        options = {"num_things": num_things, "num_stuff": num_stuff, "settings": self.fusion}
        ids = panoptic_map(masks, np.asarray(found["labels"], np.int32), semantic, **options)
        return np.where(ids == num_things + num_stuff, VOID, ids)

    def score(self, results: Sequence[dict[str, Any]], source: Any) -> Scores:
        things, stuff = len(source.class_names), len(source.stuff_names)
        quality = PanopticQuality(things, things + stuff)
        by_image = {result["image_id"]: result for result in results}
        for index in range(len(source)):
            image, truth = source.segments(index)
            if image in by_image:
                quality.add(_segments(by_image[image]["segments"], truth.ids.shape), truth)
        scores: Scores = {}
        for name, of_kind in quality.scores().items():
            suffix = "" if name == "all" else f"_{name}"
            scores |= {f"test_{part}{suffix}": getattr(of_kind, part) for part in ("pq", "sq", "rq")}
        return scores | super().score(results, source)

    def score_table(self, scores: Mapping[str, Any], info: DataInfo) -> str:
        kinds = {"all": "", "things": "_things", "stuff": "_stuff"}
        rows = {name: [scores[f"test_{part}{suffix}"] for part in ("pq", "sq", "rq")] for name, suffix in kinds.items()}
        return f"{percent_table(['PQ', 'SQ', 'RQ'], rows)}\n\n{super().score_table(scores, info)}"

    def summary_line(self, scores: Mapping[str, Any]) -> str:
        pq = scores["test_pq"]
        return f"test PQ {'none' if pq is None else f'{pq:.1%}'}; {super().summary_line(scores)}"


def _segments(segments: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> Segments:
    ids = np.full(size, VOID, np.int64)
    for segment in segments:
        ids[decode_rle(segment["mask"], size)] = segment["id"]
    numbers = np.array([segment["id"] for segment in segments], np.int64)
    return Segments(ids, numbers, numbers % INSTANCE)
