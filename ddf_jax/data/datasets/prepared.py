"""Prepared TFDS datasets on disk, found by name and without TensorFlow.

Only prepared datasets are read, so a run never starts a download. Datasets of this package need none, or a file that
the user has downloaded; they are prepared on first use.
"""

import contextlib
import io
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain
import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants, read_only_builder
from tensorflow_datasets.core.utils import error_utils

from ddf_jax.data.datasets.digits import Digits
from ddf_jax.data.datasets.furniture_views import Furniture
from ddf_jax.data.datasets.nyu_depth import NyuDepthV2Labeled
from ddf_jax.data.datasets.rooms import Rooms
from ddf_jax.data.datasets.rooms_panoptic import RoomsPanoptic
from ddf_jax.errors import DataError, UserError, one_line
from ddf_jax.files import locked

_log = logging.getLogger(__name__)

_WITHOUT_FILES = (Digits, Furniture, Rooms, RoomsPanoptic)

BUILDERS: dict[str, Any] = {builder.name: builder for builder in (*_WITHOUT_FILES, NyuDepthV2Labeled)}
"""The datasets of this package by name."""

_BLOCK = 1 << 16  # bytes, of which an array_record file has a whole number

_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")


def prepared_builder(name: str, data_dir: Path | None) -> tfds.core.DatasetBuilder:
    """The read-only builder of a prepared dataset. It needs neither the dataset's own code nor a download.

    Raises:
        UserError: no dataset of that name is prepared, its `features.json` names a class that is not TFDS's, or
            `data_dir` cannot be written.
        DataError: a file of it is missing or torn.
    """
    root = (data_dir or Path(constants.DATA_DIR)).expanduser()
    data_dir = data_dir and root
    builder = BUILDERS.get(name.partition(":")[0])
    if builder is not None:
        _prepare(builder, root)
    try:
        with error_utils.record_error_context():  # which TFDS adds its reasons to
            folder = read_only_builder._find_builder_dir(name, data_dir=data_dir)
        if folder is not None:
            _check_json(Path(folder))
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except UserError:
        raise
    except ValueError as error:  # the name cannot be parsed, or DatasetNotFoundError
        without_files = {builder.name for builder in _WITHOUT_FILES}
        usable = without_files | {path.name for path in root.glob("*/") if any(path.rglob("features.json"))}
        raise UserError(
            f"`dataset` must be a TFDS name, `builder[/config][:version]`, that is prepared in {root} (usable now: "
            f"{', '.join(sorted(usable))}), got {name!r}. To prepare a dataset of TFDS: "
            f"tfds build NAME --file_format=array_record --data_dir={root}"
        ) from error


class _Records:
    """Records by index, of which TFDS decodes some features: it would decode any image with any of pillow's formats."""

    def __init__(self, raw: Any, name: str, features: Any, encoded: tuple[str, ...]):
        self._raw = raw
        self._name = name
        self._features = features
        self._decoders = dict.fromkeys(encoded, tfds.decode.SkipDecoding())

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return self._features.deserialize_example_np(self._raw[index], decoders=self._decoders)
        except Exception as error:  # of three libraries
            raise DataError(
                f"Every record must be readable, got record {index} of {self._name}: {one_line(error)}. Delete that "
                "folder and prepare the dataset again."
            ) from error


def open_split(builder: Any, split: str, encoded: tuple[str, ...], decoded: tuple[str, ...] = ()) -> _Records:
    """The records of a split by index: the features named in `encoded` as bytes, those in `decoded` as TFDS has them.

    Raises:
        UserError: there is no such split, or it is not stored for random access.
        DataError: a file of it is missing or cut short.
    """
    info = builder.info
    features = tfds.features.FeaturesDict({name: info.features[name] for name in (*encoded, *decoded)})
    try:
        raw = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    except NotImplementedError as error:
        raise UserError(
            f"{info.full_name} must be prepared as array_record, got {info.file_format} in {builder.data_dir}. "
            f"Delete that folder and prepare it again: tfds build {info.name} --file_format=array_record"
        ) from error
    except ValueError as error:
        splits = ", ".join(info.splits)
        raise UserError(f"The split of {info.full_name} must be {splits}, or a slice of one, got {split!r}.") from error
    _check_shards(info.splits[split].filepaths)
    return _Records(raw, f"{split} in {builder.data_path}", features, encoded)


def _check_shards(files: list[Any]) -> None:
    """Finds what a copy that was cut short leaves, without opening a file: there may be thousands."""
    for file in map(Path, files):
        size = file.stat().st_size if file.is_file() else None
        if not size or size % _BLOCK:
            found = "no such file" if size is None else f"{size} bytes"
            raise DataError(
                f"{file} must have a multiple of {_BLOCK} bytes, as every array_record file, got {found}. Delete that "
                "folder and prepare the dataset again."
            )


def _check_json(folder: Path) -> None:
    """Refuses a `features.json` that names a class outside TFDS, whose module TFDS would import, whatever it is."""
    file = folder / "features.json"
    known = {
        name for name in tfds.features.FeatureConnector._registered_features if name.startswith("tensorflow_datasets.")
    }
    unknown = sorted(set(_class_names(_read_json(file))) - known)
    _read_json(folder / "dataset_info.json")
    if unknown:
        raise UserError(
            f"{file} must name feature classes of tensorflow_datasets alone, got {', '.join(unknown)}, which are not "
            "imported. Prepare the dataset with TFDS's own features."
        )


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{file} must be the JSON that TFDS wrote, got {one_line(error)}. Delete that folder and prepare the "
            "dataset again."
        ) from error


def _class_names(value: Any) -> Iterator[str]:
    """The classes that the JSON of a feature names: `pythonClassName`, or `type` in old files."""
    if isinstance(value, dict):
        yield from (value[key] for key in _CLASS_KEYS if isinstance(value.get(key), str))
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _class_names(item)


def _prepare(make_builder: Any, root: Path) -> None:
    """Writes a dataset of this package unless it is on disk, whole.

    One process prepares at a time, and the others wait for it. TFDS writes to a folder `incomplete.*` and renames it at
    the end: those that are there before are of processes that were killed.
    """
    folder = root / make_builder.name / str(make_builder.VERSION)
    if _damage(folder) is None:
        return
    try:
        with locked(root / f".{make_builder.name}.lock") as alone:
            damage = _damage(folder)
            if damage is None:  # another process was faster
                return
            for begun in folder.parent.glob(f"incomplete.*_{folder.name}") if alone else ():
                shutil.rmtree(begun)
            aside = folder.with_name(f"damaged.{folder.name}")
            if folder.exists():
                _log.warning("%s is damaged (%s) and is prepared again", folder, damage)
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)  # it may have to come from a file that is no longer there
            _log.info("preparing %s in %s, once", make_builder.name, root)
            # TFDS reports its progress on both streams, but standard output may have to be JSON.
            progress = io.StringIO()
            with contextlib.redirect_stdout(progress), contextlib.redirect_stderr(progress):
                make_builder(data_dir=root).download_and_prepare(
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False), file_format="array_record"
                )
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        if _damage(folder) is not None:
            raise UserError(f"`data_dir` must be a writable folder, got {root}: {error}.") from error


def _damage(folder: Path) -> str | None:
    """What of a dataset of this package is not as it was written, or None where its files hold all their records."""
    try:
        splits = json.loads((folder / "dataset_info.json").read_bytes())["splits"]
        json.loads((folder / "features.json").read_bytes())
        for name, lengths in ((split["name"], split["shardLengths"]) for split in splits):
            for index, length in enumerate(lengths):
                file = f"{folder.parent.name}-{name}.array_record-{index:05d}-of-{len(lengths):05d}"
                records: Any = grain.sources.ArrayRecordDataSource(str(folder / file))
                count = len(records)
                if count != int(length):
                    return f"{file} has {count} records instead of {length}"
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        return one_line(error)
    return None
