"""Prepared TFDS classification datasets, by random access and without TensorFlow.

Only what lies prepared on disk is read, so that a run never starts a download of its own. The exception is `digits`,
which comes out of an installed package and is prepared on first use.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants, read_only_builder

from ddf_jax.data.decode import CorruptImageError, decode_image
from ddf_jax.data.digits import Digits


class TfdsSource:
    """The examples of one split, by index: `{"image": uint8 [H, W, C], "label": int}`.

    Images are decoded by `decode_image`, whatever else is installed, so that the pixels are the same everywhere.

    Raises:
        ValueError: no prepared dataset of that name, no such split, not stored for random access, or not images with
            one class label each.
    """

    def __init__(self, name: str, split: str, data_dir: Path | None):
        builder: Any = _prepared_builder(name, data_dir)  # Any: TFDS's decorators hide its signatures
        info = builder.info
        self.name = info.full_name
        self._image_key, self._label_key, self.channels, self.class_names = _classification(info)
        decoders = {self._image_key: tfds.decode.SkipDecoding()}
        try:
            self._records = builder.as_data_source(split, decoders=decoders)
        except NotImplementedError as error:
            raise ValueError(
                f"{self.name} must be prepared as array_record, got {info.file_format} in {builder.data_dir}. "
                f"Delete that folder and prepare it again: tfds build {info.name} --file_format=array_record"
            ) from error
        except ValueError as error:
            splits = ", ".join(info.splits)
            raise ValueError(f"The split of {self.name} must be {splits}, or a slice of one, got {split!r}.") from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        label = int(record[self._label_key])
        if label < 0:
            raise ValueError(
                f"Every example of {self.name} must have a label, got none at {index}: take another split."
            )
        try:
            return {"image": decode_image(record[self._image_key], self.channels), "label": label}
        except CorruptImageError as error:
            raise ValueError(
                f"Image {index} of {self.name} is unreadable ({error}): prepare the dataset again."
            ) from error


def _prepared_builder(name: str, data_dir: Path | None) -> tfds.core.DatasetBuilder:
    """The read-only builder of what is on disk: the dataset's own code is not needed, and nothing is downloaded."""
    data_dir = data_dir and data_dir.expanduser()
    if name.partition(":")[0] == Digits.name:
        _prepare_digits(data_dir)
    try:
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except ValueError as error:  # the name cannot be parsed, or DatasetNotFoundError
        root = data_dir or Path(constants.DATA_DIR).expanduser()
        usable = {Digits.name} | {path.name for path in root.glob("*/") if any(path.rglob("features.json"))}
        raise ValueError(
            f"`dataset` must be a TFDS name, `builder[/config][:version]`, that is prepared in {root} (usable now: "
            f"{', '.join(sorted(usable))}), got {name!r}. To prepare a dataset, where TFDS has what it needs for that: "
            f"tfds build NAME --file_format=array_record --data_dir={root}"
        ) from error


def _prepare_digits(data_dir: Path | None) -> None:
    """Writes `digits` unless it is there.

    TFDS writes to a folder of its own per process and renames it when it is whole. A killed process therefore leaves no
    half dataset; and of two at once, the slower fails to rename and finds the other's, which holds the same.
    """
    builder = Digits(data_dir=data_dir)
    if builder.data_path.exists():
        return
    # TFDS reports progress on both streams: noise for a fraction of a second, and standard output may have to be JSON.
    noise = io.StringIO()
    try:
        with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False), file_format="array_record"
            )
    except OSError as error:
        if not builder.data_path.exists():
            raise ValueError(f"`data_dir` must be a writable folder, got {builder.data_dir_root}: {error}.") from error


def _classification(info: tfds.core.DatasetInfo) -> tuple[str, str, int, tuple[str, ...]]:
    """Key of the image, key of the label, number of channels, class names."""
    features: Any = info.features
    match info.supervised_keys:
        case (str(image_key), str(label_key)):
            image, label = features[image_key], features[label_key]
            if isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel):
                shape: Any = image.shape
                channels = shape[-1] or 3
                if channels in (1, 3) and image.np_dtype == "uint8" and label.num_classes:
                    return image_key, label_key, channels, tuple(label.names)
    raise ValueError(
        f"{info.full_name} must hold 8-bit images of 1 or 3 channels with one class label each, "
        f"got {info.supervised_keys} of {' '.join(repr(features).split())}. Choose a classification dataset."
    )
