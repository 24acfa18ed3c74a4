"""Prepared TFDS datasets on disk, found by name and without TensorFlow.

Only prepared datasets are read, so a run never starts a download. Datasets of this package need none, or a file that
the user has downloaded; they are prepared on first use.
"""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants, read_only_builder
from tensorflow_datasets.core.utils import error_utils

from ddf_jax.data.datasets.digits import Digits
from ddf_jax.data.datasets.nyu_depth import NyuDepthV2Labeled
from ddf_jax.data.datasets.rooms import Rooms
from ddf_jax.errors import UserError

BUILDERS: dict[str, Any] = {builder.name: builder for builder in (Digits, Rooms, NyuDepthV2Labeled)}
"""The datasets of this package by name."""

_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")


def prepared_builder(name: str, data_dir: Path | None) -> tfds.core.DatasetBuilder:
    """The read-only builder of a prepared dataset. It needs neither the dataset's own code nor a download.

    Raises:
        UserError: no dataset of that name is prepared, its `features.json` names a class that is not TFDS's, or
            `data_dir` cannot be written.
    """
    data_dir = data_dir and data_dir.expanduser()
    builder = BUILDERS.get(name.partition(":")[0])
    if builder is not None:
        _prepare(builder(data_dir=data_dir))
    try:
        with error_utils.record_error_context():  # which TFDS adds its reasons to
            folder = read_only_builder._find_builder_dir(name, data_dir=data_dir)
        if folder is not None:
            _check_features(Path(folder))
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except UserError:
        raise
    except ValueError as error:  # the name cannot be parsed, or DatasetNotFoundError
        root = data_dir or Path(constants.DATA_DIR).expanduser()
        usable = {Digits.name, Rooms.name} | {path.name for path in root.glob("*/") if any(path.rglob("features.json"))}
        raise UserError(
            f"`dataset` must be a TFDS name, `builder[/config][:version]`, that is prepared in {root} (usable now: "
            f"{', '.join(sorted(usable))}), got {name!r}. To prepare a dataset of TFDS: "
            f"tfds build NAME --file_format=array_record --data_dir={root}"
        ) from error


class _Records:
    """Records by index, of which TFDS decodes some features: it would decode any image with any of pillow's formats."""

    def __init__(self, raw: Any, features: Any, encoded: tuple[str, ...]):
        self._raw = raw
        self._features = features
        self._decoders = dict.fromkeys(encoded, tfds.decode.SkipDecoding())

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._features.deserialize_example_np(self._raw[index], decoders=self._decoders)


def open_split(builder: Any, split: str, encoded: tuple[str, ...], decoded: tuple[str, ...] = ()) -> _Records:
    """The records of a split by index: the features named in `encoded` as bytes, those in `decoded` as TFDS has them.

    Raises:
        UserError: there is no such split, or it is not stored for random access.
    """
    info = builder.info
    features = tfds.features.FeaturesDict({name: info.features[name] for name in (*encoded, *decoded)})
    try:
        raw = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        return _Records(raw, features, encoded)
    except NotImplementedError as error:
        raise UserError(
            f"{info.full_name} must be prepared as array_record, got {info.file_format} in {builder.data_dir}. "
            f"Delete that folder and prepare it again: tfds build {info.name} --file_format=array_record"
        ) from error
    except ValueError as error:
        splits = ", ".join(info.splits)
        raise UserError(f"The split of {info.full_name} must be {splits}, or a slice of one, got {split!r}.") from error


def _check_features(folder: Path) -> None:
    """Refuses a `features.json` that names a class outside TFDS, whose module TFDS would import, whatever it is."""
    file = folder / "features.json"
    known = {
        name for name in tfds.features.FeatureConnector._registered_features if name.startswith("tensorflow_datasets.")
    }
    try:
        unknown = sorted(set(_class_names(json.loads(file.read_text()))) - known)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} must be the JSON that TFDS wrote, got {error}. Prepare the dataset again.") from error
    if unknown:
        raise UserError(
            f"{file} must name feature classes of tensorflow_datasets alone, got {', '.join(unknown)}, which are not "
            "imported. Prepare the dataset with TFDS's own features."
        )


def _class_names(value: Any) -> Iterator[str]:
    """The classes that the JSON of a feature names: `pythonClassName`, or `type` in old files."""
    if isinstance(value, dict):
        yield from (value[key] for key in _CLASS_KEYS if isinstance(value.get(key), str))
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _class_names(item)


def _prepare(builder: Any) -> None:
    """Writes a dataset of this package unless it is on disk.

    TFDS writes to a temporary folder of each process and renames it at the end, so a killed process leaves no partial
    dataset. The slower of two processes fails to rename, and finds the same dataset of the other.
    """
    if builder.data_path.exists():
        return
    # TFDS reports its progress on both streams, but standard output may have to be JSON.
    progress = io.StringIO()
    try:
        with contextlib.redirect_stdout(progress), contextlib.redirect_stderr(progress):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False), file_format="array_record"
            )
    except OSError as error:
        if not builder.data_path.exists():
            raise UserError(f"`data_dir` must be a writable folder, got {builder.data_dir_root}: {error}.") from error
