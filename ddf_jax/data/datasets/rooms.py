"""The TFDS dataset `rooms`: rendered rooms with exact depth, seeded, without a download."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ddf_jax.data.datasets.rendering import render_rooms
from ddf_jax.data.decode import encode_depth, encode_png

HEIGHT, WIDTH = 128, 160
SIZES = {"train": 1280, "test": 100, "validation": 200}


class Rooms(tfds.core.GeneratorBasedBuilder):
    """1,580 rooms with colour and depth at 128×160: 1,280 for training, 100 for testing, 200 for validation.

    `render_room` draws each room at random from the seed (split, i), so no room is in two splits. Depth is stored in
    whole millimetres, as PNG of 16 bits; every pixel has one.
    """

    VERSION = tfds.core.Version("1.3.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.3.0": "A split for validation; the others are the same.",
        "1.2.0": "Twice the rooms to train on; those to test on are the same.",
        "1.1.0": "Paints of more different colours.",
        "1.0.0": "First version.",
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="1,580 rendered rooms, 128x160 pixels, with exact depth.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(HEIGHT, WIDTH, 3), encoding_format="png"),
                    "depth": tfds.features.Image(shape=(HEIGHT, WIDTH, 1), dtype=np.uint16, encoding_format="png"),
                }
            ),
            supervised_keys=("image", "depth"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        del dl_manager  # nothing to download
        return {split: self._generate_examples(seed, size) for seed, (split, size) in enumerate(SIZES.items())}

    def _generate_examples(self, seed: int, size: int) -> Iterator[tuple[int, Any]]:
        for index, view in enumerate(render_rooms(seed, size, HEIGHT, WIDTH)):
            yield index, {"image": encode_png(view.image), "depth": encode_depth(view.depth)}
