"""The TFDS dataset `digits`: real handwritten digits that ship with the package, without a download."""

import importlib.resources
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ddf_jax.data.decode import encode_png


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 grey 8×8 images of the digits 0 to 9, 1,437 to train on and 360 to test on.

    **Pixels.** The original pixels are the numbers of inked pixels in blocks of 4×4, 0 to 16. They are stored as
    `round(255 · count / 16)`, so 0 and 16 become 0 and 255, and the original is recovered exactly. Ink is bright.

    **Split.** The examples are sorted by class (stably, so in the original order within a class), and every fifth one
    is a test example, beginning with the first. So the classes are balanced to one example without a random generator.
    The original is ordered by writer, in blocks of about 130 images. With this rule every writer is in both splits, as
    with a random split: the test accuracy is that for new digits of known writers. With the last fifth as the test
    split it would be that for unknown writers, a harder task.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49, CC BY 4.0. See `digits.txt`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="1,797 handwritten digits, 8x8 grey pixels, from the UCI Machine Learning Repository.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://doi.org/10.24432/C50P49",
            disable_shuffling=True,  # records keep the original order, so that they can be compared one by one
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        del dl_manager  # nothing to download
        images, labels = load_digits()
        is_test = held_out(labels)
        return {
            "train": self._generate_examples(images[~is_test], labels[~is_test]),
            "test": self._generate_examples(images[is_test], labels[is_test]),
        }

    def _generate_examples(self, counts: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, Any]]:
        for key, (count, label) in enumerate(zip(counts, labels, strict=True)):
            yield key, {"image": encode_png(np.round(count * (255 / 16)).astype(np.uint8)), "label": int(label)}


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """The original images [1797, 8, 8] with values from 0 to 16, and their labels [1797], both uint8."""
    with (
        importlib.resources.files("ddf_jax.data.datasets").joinpath("digits.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        return arrays["images"], arrays["labels"]


def held_out(labels: np.ndarray) -> np.ndarray:
    """Which examples are test examples, bool [N]: every fifth one when they are stably sorted by class."""
    is_test = np.zeros(len(labels), bool)
    is_test[np.argsort(labels, kind="stable")[::5]] = True
    return is_test
