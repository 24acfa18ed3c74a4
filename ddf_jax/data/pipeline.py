"""From examples to batches: the same global batches for any number of processes and workers, resumable at any step.

A batch is a dict of numpy arrays, this process's share b of the global batch B:
`{"image": float32 [b, H, W, C], "label": int32 [b], "mask": bool [b]}`, where `mask` is False for padding. With depth
as the target, `"low"` and `"depth"` are in the label's place (`ddf_jax.data.depth_transforms`).
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np
from PIL import Image

from ddf_jax.data.batches import BatchIterator
from ddf_jax.data.config import DataConfig
from ddf_jax.data.decode import CorruptImageError, decode_depth, decode_image, image_to_array
from ddf_jax.data.depth_source import DepthSource
from ddf_jax.data.depth_transforms import Downsample, depth_training_transforms
from ddf_jax.data.sources import DataInfo, Source, open_source
from ddf_jax.data.transforms import evaluation_transforms, training_transforms

# From this side on, threads pay: pillow decodes and resizes without holding Python's lock. Smaller images are mostly
# Python, and more than one thread made 64 images of 8 x 8 pixels take 33 ms instead of 17.
_THREADED_SIDE = 96
_THREADS = 4


def train_iterator(
    config: DataConfig, *, batch_size: int, seed: int, process_index: int = 0, process_count: int = 1
) -> BatchIterator:
    """Training batches without end, shuffled anew in each epoch.

    Position k of the endless sequence of examples decides the example and its augmentation (with `seed`, and nothing
    else), and global batch n holds the positions n·B to (n + 1)·B - 1. An epoch need not end with a batch. Process p of
    P gets rows p·B/P to (p + 1)·B/P - 1, so that the shares put together in order are the same global batch for any P.

    The state is `{"step": n}`, the number of batches taken. A run may therefore go on with another number of processes,
    workers or threads: it sees the batches that the unbroken run would have seen, bit by bit.

    An unreadable image file is replaced by the next readable one of its split.

    Raises:
        ValueError: the data cannot be opened, or `batch_size` is not a multiple of `process_count`.
    """
    _check_share(batch_size, process_index, process_count)
    source = open_source(config, "train")
    examples = grain.MapDataset.source(_Readable(source)).seed(seed).shuffle().repeat()
    examples = examples.apply(_TARGETS[config.target].training(config, source))
    return _batches(examples, config, batch_size, process_index, process_count)


def eval_batches(
    config: DataConfig, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> BatchIterator:
    """Every evaluation example once over all processes, in order; every process gets the same number of full batches.

    The last global batch is filled up with black images whose `mask` is False; one of these also stands for an
    unreadable image file. Processes share a batch as in `train_iterator`.

    Raises:
        ValueError: the data cannot be opened, or `batch_size` is not a multiple of `process_count`.
    """
    _check_share(batch_size, process_index, process_count)
    source, target = open_source(config, "eval"), _TARGETS[config.target]
    examples = grain.MapDataset.source(_Padded(source, batch_size, target.blank(config, source)))
    examples = examples.apply(target.evaluation(config, source))
    return _batches(examples, config, batch_size, process_index, process_count)


def read_image(image: str | os.PathLike[str] | Image.Image, info: DataInfo) -> np.ndarray:
    """A user's image as a model sees it in evaluation, float32 `[H, W, C]`.

    Raises:
        ValueError: the file cannot be read or is no image.
    """
    if isinstance(image, Image.Image):
        array = image_to_array(image, info.channels)
    else:
        try:
            array = decode_image(Path(image).read_bytes(), info.channels)
        except (OSError, CorruptImageError) as error:
            raise ValueError(f"{os.fspath(image)} must be an image file that pillow can read, got {error}.") from error
    example = {"image": array}
    for transform in evaluation_transforms(info.image_size, info.channels):
        example = transform.map(example)
    return example["image"]


def read_picture(file: Path) -> np.ndarray:
    """A user's picture as an upsampler of depth sees it, float32 `[H, W, 3]` in [0, 1].

    Raises:
        ValueError: the file cannot be read or is no image.
    """
    try:
        return decode_image(file.read_bytes(), 3).astype(np.float32) / np.float32(255)
    except (OSError, CorruptImageError) as error:
        raise ValueError(f"{file} must be an image file that pillow can read, got {error}.") from error


def read_depth(file: Path) -> np.ndarray:
    """A user's depth map in metres, float32 `[H, W]`, 0 where nothing was measured.

    Raises:
        ValueError: the file cannot be read, is no grey PNG of 16 bits, or nothing was measured at all.
    """
    try:
        depth = decode_depth(file.read_bytes())
    except (OSError, CorruptImageError) as error:
        raise ValueError(f"{file} must be a grey PNG of 16 bits, depth in millimetres, got {error}.") from error
    if not depth.any():
        raise ValueError(f"{file} must have a pixel that was measured, got 0 everywhere.")
    return depth


def _batches(
    examples: grain.MapDataset[Any], config: DataConfig, batch_size: int, process_index: int, process_count: int
) -> BatchIterator:
    share = batch_size // process_count
    rows = grain.MapDataset.source(_ProcessRows(examples, batch_size, process_index * share, share))
    batches = rows.batch(share, drop_remainder=True)
    threads = _THREADS if config.image_size >= _THREADED_SIDE and config.workers == 0 else 1
    return BatchIterator(batches, workers=config.workers, threads=threads)


def _check_share(batch_size: int, process_index: int, process_count: int) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"`batch_size` must be a multiple of the number of processes, {process_count}, got {batch_size}."
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"`process_index` must be in [0, {process_count}), got {process_index}.")


class _ProcessRows:
    """The rows `[start, start + count)` of every global batch, one batch after the other."""

    def __init__(self, examples: grain.MapDataset[Any], batch_size: int, start: int, count: int):
        self._examples = examples
        self._batch_size = batch_size
        self._start = start
        self._count = count

    def __len__(self) -> int:
        return len(self._examples) // self._batch_size * self._count

    def __getitem__(self, index: int) -> Any:
        batch, row = divmod(index, self._count)
        return self._examples[batch * self._batch_size + self._start + row]


class _Readable:
    """A training source without gaps: the next readable example stands in for an unreadable one."""

    def __init__(self, source: Source):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        for step in range(len(self)):
            example = self._source[(index + step) % len(self)]
            if example is not None:
                return _masked(example, True)
        raise ValueError("There must be a readable image to train on, got none.")


class _Padded:
    """An evaluation source as long as its batches: padding and unreadable examples have `mask` False."""

    def __init__(self, source: Source, batch_size: int, blank: dict[str, Any]):
        self._source = source
        self._length = -(-len(source) // batch_size) * batch_size
        self._blank = blank

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index] if index < len(self._source) else None
        return _masked(self._blank, False) if example is None else _masked(example, True)


def _masked(example: dict[str, Any], mask: bool) -> dict[str, Any]:
    label = {"label": np.int32(example["label"])} if "label" in example else {}
    return example | label | {"mask": np.bool_(mask)}


class _Target(NamedTuple):
    """How the examples of one kind of target become what a batch consists of, given the recipe's data and the source.

    `blank` is the example that padding consists of.
    """

    training: Callable[[DataConfig, Any], Sequence[grain.transforms.Transformation]]
    evaluation: Callable[[DataConfig, Any], Sequence[grain.transforms.Transformation]]
    blank: Callable[[DataConfig, Any], dict[str, Any]]


def _blank_label(config: DataConfig, source: Source) -> dict[str, Any]:
    return {"image": np.zeros((config.image_size, config.image_size, source.channels), np.uint8), "label": 0}


def _blank_depth(config: DataConfig, source: DepthSource) -> dict[str, Any]:
    return {"image": np.zeros((*source.shape, 3), np.uint8), "depth": np.zeros(source.shape, np.float32)}


_TARGETS = {
    "label": _Target(
        training=lambda config, source: training_transforms(config, source.channels),
        evaluation=lambda config, source: evaluation_transforms(config.image_size, source.channels),
        blank=_blank_label,
    ),
    "depth": _Target(
        training=lambda config, source: depth_training_transforms(config, source.shape),
        evaluation=lambda config, source: [Downsample(config.scale)],
        blank=_blank_depth,
    ),
}
