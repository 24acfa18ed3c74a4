"""The TFDS dataset `furniture`: rendered things with one label each, seeded, without a download."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ddf_jax.data.datasets.furniture import CLASSES
from ddf_jax.data.datasets.rendering import in_threads, render_thing
from ddf_jax.data.decode import encode_png

SIDE = 64
SIZES = {"train": 8000, "test": 400}
KINDS = tuple(name for name in CLASSES if name != "board")
"""The classes. A board is left out, as it looks like a cupboard from the front and like a pole from the side."""


class Furniture(tfds.core.GeneratorBasedBuilder):
    """8,400 RGB images of 64×64 pixels, of five classes of furniture: 8,000 for training and 400 for testing.

    Each shows one thing in an empty room, from a random place (`render_thing`). Image i of a split is drawn from the
    seed (split, i), and its class is i modulo 5, so that the classes are balanced. Colours, posters and lamps are
    random, so only shapes and places tell the classes apart: a cupboard is a box on the floor, a shelf one on a wall.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="8,400 rendered pieces of furniture of five classes, 64x64 pixels.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(KINDS)),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        del dl_manager  # nothing to download
        return {split: self._generate_examples(seed, size) for seed, (split, size) in enumerate(SIZES.items())}

    def _generate_examples(self, seed: int, size: int) -> Iterator[tuple[int, Any]]:
        def render(index: int) -> np.ndarray:
            return render_thing(np.random.default_rng([seed, index]), KINDS[index % len(KINDS)], SIDE, SIDE)

        for index, image in enumerate(in_threads(render, size)):
            yield index, {"image": encode_png(image), "label": index % len(KINDS)}
