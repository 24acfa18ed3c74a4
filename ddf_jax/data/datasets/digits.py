"""The TFDS dataset `digits`: scikit-learn's shipped handwritten digits, real images and nothing to download."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from ddf_jax.data.decode import encode_png

DIGITS_NAME = "digits"


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 grey 8×8 images of the digits 0 to 9, 1,437 to train on and 360 to test on.

    **Pixels.** The original counts inked pixels of a 4×4 block, 0 to 16. They are stored as `round(255 · count / 16)`:
    0 and 16 become 0 and 255, all 17 values stay apart, so the original is recovered exactly. Ink is bright.

    **Split.** The examples are sorted by class (stably, so in the original order within a class) and every fifth one,
    beginning with the first, is a test example: the classes are balanced to one example and no random generator is
    needed. The original is ordered by writer, in blocks of about 130 images. This rule puts every writer on both sides,
    as a random split would: the test accuracy is that on new digits of known writers. Cutting off the last fifth would
    measure unseen writers, a different and harder question.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49 (its test set, as in `sklearn.datasets.load_digits`), CC BY 4.0.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="1,797 handwritten digits, 8x8 grey pixels, shipped with scikit-learn.",
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
        data: Any = load_digits()
        is_test = held_out(data.target)
        return {
            "train": self._generate_examples(data.images[~is_test], data.target[~is_test]),
            "test": self._generate_examples(data.images[is_test], data.target[is_test]),
        }

    def _generate_examples(self, counts: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, Any]]:
        for key, (count, label) in enumerate(zip(counts, labels, strict=True)):
            yield key, {"image": encode_png(np.round(count * 255 / 16).astype(np.uint8)), "label": int(label)}


def held_out(labels: np.ndarray) -> np.ndarray:
    """Which examples are for testing, bool `[N]`: every fifth when they are stably sorted by class."""
    is_test = np.zeros(len(labels), bool)
    is_test[np.argsort(labels, kind="stable")[::5]] = True
    return is_test
