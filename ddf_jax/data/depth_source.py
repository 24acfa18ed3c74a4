"""Prepared TFDS datasets of images with depth, by random access and without TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ddf_jax.data.config import DEFAULT_DECODING, Decoding
from ddf_jax.data.datasets.prepared import open_split, prepared_builder
from ddf_jax.data.decode import CorruptImageError, decode_depth, decode_image
from ddf_jax.data.fingerprint import WHOLE, describe_split
from ddf_jax.errors import DataError, UserError

_FEATURES = ("image", "depth")


class DepthSource:
    """The examples of one split, by index: `{"image": uint8 [H, W, 3], "depth": float32 [H, W]}`, depth in metres.

    Depth is 0 where nothing was measured. All images of a set have one size, `shape` = (H, W).

    Raises:
        UserError: no prepared dataset of that name, no such split, not stored for random access, or not images with
            16-bit depth.
    """

    channels = 3
    class_names: tuple[str, ...] = ()

    def __init__(self, name: str, split: str, data_dir: Path | None, decoding: Decoding = DEFAULT_DECODING):
        builder: Any = prepared_builder(name, data_dir)  # Any: TFDS's decorators hide its signatures
        self.name = builder.info.full_name
        self._decoding = decoding
        features = builder.info.features
        kinds = {
            name: feature.np_dtype for name, feature in features.items() if isinstance(feature, tfds.features.Image)
        }
        if (kinds.get("image"), kinds.get("depth")) != ("uint8", "uint16"):
            raise UserError(
                f"{self.name} must hold an 8-bit `image` and a 16-bit `depth` each, got "
                f"{' '.join(repr(features).split())}. Choose a dataset with depth, such as rooms."
            )
        self._records = open_split(builder, split, _FEATURES)
        self._identity = describe_split(builder.info, split)
        if not len(self):
            raise UserError(f"The split of {self.name} must hold an example, got none in {split!r}.")
        self.shape: tuple[int, int] = self[0]["depth"].shape

    def describe(self, index: int) -> str:
        return f"image {index} of {self.name}"

    def fingerprint(self) -> dict[str, str]:
        return {WHOLE: self._identity}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        record = self._records[index]
        try:
            image = decode_image(record["image"], self.channels, self._decoding, upright=False)  # as the depth is
            return {"image": image, "depth": decode_depth(record["depth"])}
        except CorruptImageError as error:
            raise DataError(
                f"Every image must be readable, got {self.describe(index)}: {error}. Prepare the dataset again."
            ) from error
