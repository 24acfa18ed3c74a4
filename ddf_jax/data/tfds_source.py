"""Prepared TFDS classification datasets, by random access and without TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ddf_jax.data.config import DEFAULT_DECODING, Decoding
from ddf_jax.data.crop import Crop
from ddf_jax.data.datasets.prepared import open_split, prepared_builder
from ddf_jax.data.decode import CorruptImageError, decode_crop, decode_image
from ddf_jax.data.fingerprint import WHOLE, describe_split
from ddf_jax.errors import DataError, UserError


class TfdsSource:
    """The examples of one split, by index: `{"image": uint8 [H, W, C], "label": int32}`.

    Images are decoded by `decode_image`, whatever else is installed, so that the pixels are the same everywhere.

    Raises:
        UserError: no prepared dataset of that name, no such split, not stored for random access, or not images with
            one class label each.
    """

    shape = None

    def __init__(self, name: str, split: str, data_dir: Path | None, decoding: Decoding = DEFAULT_DECODING):
        builder: Any = prepared_builder(name, data_dir)  # Any: TFDS's decorators hide its signatures
        info = builder.info
        self.name = info.full_name
        self._decoding = decoding
        self._image_key, self._label_key, self.channels, self.class_names = _classification(info)
        self._records = open_split(builder, split, (self._image_key,), (self._label_key,))
        self._identity = describe_split(info, split)

    def describe(self, index: int) -> str:
        return f"image {index} of {self.name}"

    def fingerprint(self) -> dict[str, str]:
        return {WHOLE: self._identity}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read(index)

    def read(self, index: int, crop: Crop | None = None) -> dict[str, Any]:
        record = self._records[index]
        label = int(record[self._label_key])
        if label < 0:
            raise UserError(f"Every example of {self.name} must have a label, got none at {index}: take another split.")
        try:
            data, channels, decoding = record[self._image_key], self.channels, self._decoding
            image = decode_crop(data, channels, crop, decoding) if crop else decode_image(data, channels, decoding)
            return {"image": image, "label": np.int32(label)}
        except CorruptImageError as error:
            raise DataError(
                f"Every image must be readable, got {self.describe(index)}: {error}. Prepare the dataset again."
            ) from error


def _classification(info: tfds.core.DatasetInfo) -> tuple[str, str, int, tuple[str, ...]]:
    """Key of the image, key of the label, number of channels, class names."""
    features: Any = info.features
    match info.supervised_keys:
        case (str(image_key), str(label_key)):
            image, label = features[image_key], features[label_key]
            if isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel):
                shape: Any = image.shape
                channels = shape[-1] or 3
                if label.num_classes == 1:
                    raise UserError(f"There must be at least two classes in {info.full_name}, got {label.names[0]}.")
                if channels in (1, 3) and image.np_dtype == "uint8" and label.num_classes:
                    return image_key, label_key, channels, tuple(label.names)
    raise UserError(
        f"{info.full_name} must hold 8-bit images of 1 or 3 channels with one class label each, "
        f"got {info.supervised_keys} of {' '.join(repr(features).split())}. Choose a classification dataset."
    )
