"""Prepared TFDS datasets on disk, found by name and without TensorFlow.

Only what lies prepared on disk is read, so that a run never starts a download of its own. The exceptions are datasets
that need no download, or whose file a person has put into place: these are prepared on first use.
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

BUILDERS: dict[str, Any] = {builder.name: builder for builder in (Digits, Rooms, NyuDepthV2Labeled)}
"""What this package prepares itself."""


def prepared_builder(name: str, data_dir: Path | None) -> tfds.core.DatasetBuilder:
    """The read-only builder of what is on disk: the dataset's own code is not needed, and nothing is downloaded.

    Raises:
        ValueError: nothing of that name is prepared, or `data_dir` cannot be written.
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
        raise ValueError(
            f"`dataset` must be a TFDS name, `builder[/config][:version]`, that is prepared in {root} (usable now: "
            f"{', '.join(sorted(usable))}), got {name!r}. To prepare a dataset, where TFDS has what it needs for that: "
            f"tfds build NAME --file_format=array_record --data_dir={root}"
        ) from error


def open_split(builder: Any, split: str, encoded: tuple[str, ...]) -> Any:
    """The records of a split by index, the features named in `encoded` left as bytes.

    Raises:
        ValueError: there is no such split, or it is not stored for random access.
    """
    info = builder.info
    decoders: Any = dict.fromkeys(encoded, tfds.decode.SkipDecoding())
    try:
        return builder.as_data_source(split, decoders=decoders)
    except NotImplementedError as error:
        raise ValueError(
            f"{info.full_name} must be prepared as array_record, got {info.file_format} in {builder.data_dir}. "
            f"Delete that folder and prepare it again: tfds build {info.name} --file_format=array_record"
        ) from error
    except ValueError as error:
        splits = ", ".join(info.splits)
        raise ValueError(
            f"The split of {info.full_name} must be {splits}, or a slice of one, got {split!r}."
        ) from error


def _prepare(builder: Any) -> None:
    """Writes a dataset of this package unless it is there.

    TFDS writes to a folder of its own per process and renames it when it is whole. A killed process therefore leaves no
    half dataset; and of two at once, the slower fails to rename and finds the other's, which holds the same.
    """
    if builder.data_path.exists():
        return
    # TFDS reports progress on both streams: noise for a minute at most, and standard output may have to be JSON.
    noise = io.StringIO()
    try:
        with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False), file_format="array_record"
            )
    except OSError as error:
        if not builder.data_path.exists():
            raise ValueError(f"`data_dir` must be a writable folder, got {builder.data_dir_root}: {error}.") from error
