"""Images in, objects out, and panoptic maps where the network makes them."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.data.decode import decode_image, encode_png
from ddf_jax.data.examples import unlabelled
from ddf_jax.data.panoptic import ids_to_rgb
from ddf_jax.data.transforms import Normalize
from ddf_jax.detection.annotations import Detections
from ddf_jax.serving.services import Arrays, Example, Service, Size, data_url
from ddf_jax.training.detect import ImageObjects
from ddf_jax.training.devices import normalized
from ddf_jax.training.tasks import Model

_SCORE = 0.5  # the least of an object in a picture
_LARGEST = 1024  # side of a picture in pixels


class DetectionService(Service):
    """`image` uint8 [B, H, W, 3], 0 beyond `size` int32 [B, 2], to the fields of `Detections` by name.

    H and W are those of the task's canvas. Boxes are in pixels of the array `image`.
    """

    max_pixels: ClassVar[int] = 1 << 22  # masks are made of the image's size
    any_batch: ClassVar[bool] = False  # JAX finds no symbolic size for the regions of a batch
    any_size: ClassVar[bool] = False  # that of the canvas

    def inputs(self, batch: Size, height: Size, width: Size) -> list[dict[str, jax.ShapeDtypeStruct]]:
        return [
            {
                "image": jax.ShapeDtypeStruct((batch, *variant.canvas, self.info.channels), jnp.uint8),
                "size": jax.ShapeDtypeStruct((batch, 2), jnp.int32),
            }
            for variant in self.task.variants()
        ]

    @property
    def size(self) -> tuple[int, int]:
        return self.task.canvas

    def compute(self, model: Model, arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        image, size = normalized(arrays["image"], Normalize(self.info.channels)), arrays["size"]
        rows, columns = (jnp.arange(length)[None] < size[:, axis, None] for axis, length in enumerate(image.shape[1:3]))
        inside = rows[:, :, None, None] & columns[:, None, :, None]
        found = self.task.predict(model, {"image": jnp.where(inside, image, 0.0), "size": size})
        return {name: values for name, values in found._asdict().items() if values is not None}

    def read(self, files: Mapping[str, bytes], *, picture: bool = False) -> Example:
        image = decode_image(files["image"], self.info.channels, self.data.decoding)
        task = self.task.variant(*image.shape[:2])
        resize, *_ = task.examples().evaluation_transforms(self.info.channels)
        resized: np.ndarray = resize.map(unlabelled(image))["image"]
        height, width = resized.shape[:2]
        canvas = np.zeros((*task.canvas, self.info.channels), np.uint8)
        canvas[:height, :width] = resized
        arrays = {"image": canvas, "size": np.array([height, width], np.int32)}
        return Example(arrays, image.shape[:2], image if picture else None)

    def answer(self, name: str, outputs: Arrays, example: Example) -> list[dict[str, Any]]:
        make: Any = Detections  # of NumPy's arrays
        found = self.task.objects(
            make(**{field: values[None] for field, values in outputs.items()}),
            0,
            example.arrays["size"],
            np.array(example.size),
            self.info,
        )
        ids = found["panoptic"]
        panoptic = None if ids is None else data_url(encode_png(ids_to_rgb(ids)).getvalue())
        row = detection_row(name, found, self.info.class_names, panoptic)
        return [row if example.image is None else row | {"picture": self._picture(example.image, found)}]

    def _picture(self, image: np.ndarray, found: Mapping[str, Any]) -> str:
        from ddf_jax.training.drawing.objects import draw_objects
        from ddf_jax.training.drawing.segments import draw_segments

        image = image.repeat(3, axis=-1) if image.shape[-1] == 1 else image
        names = (*self.info.class_names, *self.info.stuff_names)
        if found["panoptic"] is not None:
            return data_url(
                encode_png(draw_segments(image, found["panoptic"], names, self.info.num_classes)).getvalue()
            )
        shown = ImageObjects.of(image, found).above(_SCORE)
        drawn = draw_objects(
            image, shown.boxes, shown.labels, names, scores=shown.scores, masks=shown.masks, largest=_LARGEST
        )
        return data_url(encode_png(drawn).getvalue())


def detection_row(
    image: str, found: Mapping[str, Any], class_names: Sequence[str], panoptic: str | None
) -> dict[str, Any]:
    """The objects of an image, `{image, detections: [{label, score, box, mask}], panoptic}`.

    Args:
        image: its name.
        found: lists `boxes`, `scores`, `labels` and `masks`, of the last one also None.
        class_names: of the labels.
        panoptic: where its panoptic map is.
    """
    masks = found["masks"] or [None] * len(found["boxes"])
    objects = zip(found["labels"], found["scores"], found["boxes"], masks, strict=True)
    detections = [
        {"label": class_names[label], "score": score, "box": box, "mask": mask} for label, score, box, mask in objects
    ]
    return {"image": image, "detections": detections, "panoptic": panoptic}
