"""The objects that a run's detector finds in a user's images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ddf_jax.detection.rle import Rle
from ddf_jax.errors import RunError
from ddf_jax.training.devices import batch_split, padded_rows
from ddf_jax.training.run import Run
from ddf_jax.training.tasks.detection import Detection

if TYPE_CHECKING:
    from ddf_jax.data.reading import UserImage

_BATCH_SIZE = 4  # images a device sees at a time


class ImageObjects(NamedTuple):
    """The objects of one image by descending score, in pixels of the image itself.

    Args:
        image: the image as it was read, upright, uint8 [H, W, 3].
        boxes: x1, y1, x2, y2, float32 [N, 4].
        scores: float32 [N].
        labels: classes, places in `run.info.class_names`, int32 [N].
        masks: run lengths as COCO's JSON has them, `counts` being a string; None where the model has no mask head.
        panoptic: int32 [H, W], class + 1000 · number of the object, the classes of stuff following those of things, 0
            for no segment; None for a run that is not of panoptic segmentation.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[Rle] | None
    panoptic: np.ndarray | None

    @classmethod
    def of(cls, image: np.ndarray, objects: Mapping[str, Any]) -> "ImageObjects":
        """What `task.objects` gives for an image."""
        return cls(
            image,
            np.asarray(objects["boxes"], np.float32).reshape(-1, 4),
            np.asarray(objects["scores"], np.float32),
            np.asarray(objects["labels"], np.int32),
            objects["masks"],
            objects["panoptic"],
        )

    def lists(self) -> dict[str, Any]:
        """`boxes`, `scores`, `labels` and `masks` as JSON has them."""
        arrays = {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}
        return {name: values.tolist() for name, values in arrays.items()} | {"masks": self.masks}

    def above(self, score: float) -> "ImageObjects":
        """The objects of at least this score; the panoptic map as it is."""
        kept = self.scores >= score
        masks = None if self.masks is None else [mask for mask, keep in zip(self.masks, kept, strict=True) if keep]
        return self._replace(boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept], masks=masks)


def detect(run: Run, images: "Sequence[UserImage] | np.ndarray") -> Iterator[ImageObjects]:
    """Finds the objects in any number of images, in their order; a batch is computed when its first is asked for.

    Every image is read before any is computed, so that one that cannot be read costs nothing.

    Args:
        run: from `load_run`, of detection or panoptic segmentation.
        images: files, pillow images, or uint8 arrays [H, W] or [H, W, C] of any size, resized and padded as the run's
            own evaluation images are.

    Raises:
        UserError: an image cannot be read, or the run is of another task.

    Example::

        run = ddf_jax.load_run("runs/rooms")
        for found in ddf_jax.detect(run, ["kitchen.jpg", "hall.png"]):
            likely = found.above(0.5)
            print([run.info.class_names[label] for label in likely.labels], likely.boxes)
    """
    from ddf_jax.data.reading import read_pixels

    task = run.recipe.task
    if not isinstance(task, Detection):
        raise RunError(
            f"`detect` needs a run of detection or panoptic segmentation, got {run.recipe.name}, a "
            f"{type(task).__name__}. Try {task.used_by}."
        )
    if not len(images):
        raise RunError("`images` must hold an image, got none.")
    size = padded_rows(len(images), run.mesh, _BATCH_SIZE)

    def read(start: int) -> list[np.ndarray]:
        return [read_pixels(image, run.info, run.recipe.data.decoding) for image in images[start : start + size]]

    first = read(0)
    for start in range(size, len(images), size):
        read(start)  # and forgotten, or all would have to fit into memory

    def batches() -> Iterator[ImageObjects]:
        yield from _found(run, task, first, size)
        for start in range(size, len(images), size):
            yield from _found(run, task, read(start), size)

    return batches()


def _found(run: Run, task: Detection, images: list[np.ndarray], size: int) -> Iterator[ImageObjects]:
    """The objects of images, those of one canvas in a batch that is padded to `size` rows."""
    variants = [task.variant(*image.shape[:2]) for image in images]
    found: dict[int, dict[str, Any]] = {}
    for variant in dict.fromkeys(variants):
        places = [place for place, of in enumerate(variants) if of == variant]
        found |= zip(places, _objects(run, variant, [images[place] for place in places], size), strict=True)
    for place, image in enumerate(images):
        yield ImageObjects.of(image, found[place])


def _objects(run: Run, task: Detection, images: list[np.ndarray], size: int) -> list[dict[str, Any]]:
    """What `task.objects` gives for each image of a batch."""
    examples = [_example(task, image, run.info.channels) for image in images]
    rows = examples + examples[-1:] * (size - len(examples))
    batch = {name: np.stack([row[name] for row in rows]) for name in task.inputs}
    split = batch_split(run.mesh)
    placed = {name: jax.device_put(values, split) for name, values in batch.items()}
    outputs = jax.device_get(run.predict_step(run.state.variables, placed))
    return [
        task.objects(outputs, row, batch["size"][row], np.array(image.shape[:2]), run.info)
        for row, image in enumerate(images)
    ]


def _example(task: Detection, image: np.ndarray, channels: int) -> dict[str, Any]:
    """What an evaluation example of this image would be."""
    from ddf_jax.data.examples import unlabelled

    example: Any = unlabelled(image)
    for transform in task.examples().evaluation_transforms(channels):
        example = transform.map(example)
    return example
