"""Prepared TFDS datasets on disk, found by name and without TensorFlow.

Only prepared datasets are read, so a run never starts a download. Datasets of this package need none, or a file that
the user has downloaded; they are prepared on first use.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants, read_only_builder

from ddf_jax.data.datasets.digits import Digits
from ddf_jax.data.datasets.nyu_depth import NyuDepthV2Labeled
from ddf_jax.data.datasets.rooms import Rooms
from ddf_jax.errors import UserError

BUILDERS: dict[str, Any] = {builder.name: builder for builder in (Digits, Rooms, NyuDepthV2Labeled)}
"""The datasets of this package by name."""


def prepared_builder(name: str, data_dir: Path | None) -> tfds.core.DatasetBuilder:
    """The read-only builder of a prepared dataset. It needs neither the dataset's own code nor a download.

    Raises:
        UserError: no dataset of that name is prepared, or `data_dir` cannot be written.
    """
    data_dir = data_dir and data_dir.expanduser()
    builder = BUILDERS.get(name.partition(":")[0])
    if builder is not None:
        _prepare(builder(data_dir=data_dir))
    try:
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except ValueError as error:  # the name cannot be parsed, or DatasetNotFoundError
        root = data_dir or Path(constants.DATA_DIR).expanduser()
        usable = {Digits.name, Rooms.name} | {path.name for path in root.glob("*/") if any(path.rglob("features.json"))}
        raise UserError(
            f"`dataset` must be a TFDS name, `builder[/config][:version]`, that is prepared in {root} (usable now: "
            f"{', '.join(sorted(usable))}), got {name!r}. To prepare a dataset of TFDS: "
            f"tfds build NAME --file_format=array_record --data_dir={root}"
        ) from error


def open_split(builder: Any, split: str, encoded: tuple[str, ...]) -> Any:
    """The records of a split by index. The features named in `encoded` stay bytes.

    Raises:
        UserError: there is no such split, or it is not stored for random access.
    """
    info = builder.info
    decoders: Any = dict.fromkeys(encoded, tfds.decode.SkipDecoding())
    try:
        return builder.as_data_source(split, decoders=decoders)
    except NotImplementedError as error:
        raise UserError(
            f"{info.full_name} must be prepared as array_record, got {info.file_format} in {builder.data_dir}. "
            f"Delete that folder and prepare it again: tfds build {info.name} --file_format=array_record"
        ) from error
    except ValueError as error:
        splits = ", ".join(info.splits)
        raise UserError(f"The split of {info.full_name} must be {splits}, or a slice of one, got {split!r}.") from error


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
