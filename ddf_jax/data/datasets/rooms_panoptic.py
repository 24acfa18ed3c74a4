"""The TFDS dataset `rooms_panoptic`: rendered rooms with exact masks and boxes, seeded, without a download."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ddf_jax.data.datasets.furniture import CLASSES
from ddf_jax.data.datasets.rendering import STUFF, View, render_rooms
from ddf_jax.data.decode import encode_png
from ddf_jax.data.panoptic import ids_to_rgb, mask_boxes, segment_masks

HEIGHT, WIDTH = 128, 160
SIZES = {"train": 1280, "test": 100, "validation": 200}


class RoomsPanoptic(tfds.core.GeneratorBasedBuilder):
    """1,580 rooms at 128×160 with every pixel's segment: 1,280 for training, 100 for testing, 200 for validation.

    Its pictures are those of `rooms`.

    `panoptic_image` holds each pixel's segment id as COCO's panoptic images do, id = R + 256 G + 256² B. `objects` and
    `stuff` are the tables of the segments with a visible pixel. Objects are things of six classes, however small; a
    table's legs and a pole's head are part of it, a ball on a table is an object of its own. Stuff is walls, floor and
    ceiling, one segment each. There are neither crowds nor void pixels. `area` counts the visible pixels, and `bbox` is
    the smallest box around them.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (HEIGHT, WIDTH, 3)
        segment = {"id": np.int64, "area": np.int64}
        return tfds.core.DatasetInfo(
            builder=self,
            description="1,580 rendered rooms, 128x160 pixels, with exact masks and boxes of things and stuff.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape, encoding_format="png"),
                    "panoptic_image": tfds.features.Image(shape=shape, encoding_format="png"),
                    "objects": tfds.features.Sequence(
                        {
                            **segment,
                            "bbox": tfds.features.BBoxFeature(),
                            "label": tfds.features.ClassLabel(names=list(CLASSES)),
                            "is_crowd": np.bool_,
                        }
                    ),
                    "stuff": tfds.features.Sequence({**segment, "label": tfds.features.ClassLabel(names=list(STUFF))}),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        del dl_manager  # nothing to download
        return {split: self._generate_examples(seed, size) for seed, (split, size) in enumerate(SIZES.items())}

    def _generate_examples(self, seed: int, size: int) -> Iterator[tuple[int, Any]]:
        for index, view in enumerate(render_rooms(seed, size, HEIGHT, WIDTH)):
            yield index, _example(view)


def _example(view: View) -> dict[str, Any]:
    """The features of a view. The id of segment k is k + 1, as 0 is void."""
    height, width = view.segments.shape
    numbers, areas = np.unique(view.segments, return_counts=True)
    boxes = mask_boxes(segment_masks(view.segments, numbers))
    objects, stuff = [], []
    for number, area, (x1, y1, x2, y2) in zip(numbers.tolist(), areas.tolist(), boxes.tolist(), strict=True):
        segment = {"id": number + 1, "area": area, "label": view.names[number]}
        if number < len(STUFF):
            stuff.append(segment)
        else:
            box = tfds.features.BBox(ymin=y1 / height, xmin=x1 / width, ymax=y2 / height, xmax=x2 / width)
            objects.append({**segment, "bbox": box, "is_crowd": False})
    return {
        "image": encode_png(view.image),
        "panoptic_image": encode_png(ids_to_rgb(view.segments.astype(np.int32) + 1)),
        "objects": objects,
        "stuff": stuff,
    }
