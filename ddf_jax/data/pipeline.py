"""From examples to batches: the same global batches for any number of processes and workers, resumable at any step.

A batch is a dict of numpy arrays, this process's share b of the global batch B: the arrays of an example stacked, and
`"mask": bool [b]`, False for padding. What an example holds is the matter of its kind (`ddf_jax.data.examples`).
"""

import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import grain
import numpy as np

from ddf_jax.data.batches import BatchIterator, HostBatch
from ddf_jax.data.config import DataConfig
from ddf_jax.data.crop import to_array
from ddf_jax.data.groups import InTurns, groups_of
from ddf_jax.data.memory import ReusedMemory
from ddf_jax.data.sources import CropSource, Examples, Source, open_source
from ddf_jax.data.transforms import Normalize, RandomResizedCrop
from ddf_jax.errors import DataError, UserError, one_line

# From this side on, threads pay: pillow decodes and resizes without holding Python's lock. Smaller images are mostly
# Python, and more than one thread made 64 images of 8 x 8 pixels take 33 ms instead of 17.
_THREADED_SIDE = 96
# More threads than cores cost 5 % of their time, more than four wait for each other.
_THREADS = min(4, os.cpu_count() or 1)

_EXAMPLE: ContextVar[tuple[Any, int]] = ContextVar("example")  # source and index of what this thread prepares


def train_iterator(
    config: DataConfig,
    examples: Examples,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    normalized: bool = True,
) -> BatchIterator:
    """Training batches without end, shuffled anew in each epoch.

    Position k of the endless sequence of examples decides the example and its augmentation (with `seed`, and nothing
    else), and global batch n holds the positions n·B to (n + 1)·B - 1. An epoch need not end with a batch. Process p of
    P gets rows p·B/P to (p + 1)·B/P - 1, so that the shares put together in order are the same global batch for any P.

    The state is `{"step": n}`, the number of batches taken. A run may therefore be resumed with another number of
    processes, workers or threads: it sees the batches that the unbroken run would have seen, bit by bit.

    Where the examples have two shapes (`Grouped`), each batch has one, and each group an endless sequence of its own
    (`InTurns`).

    With R `repeats`, positions k·R to (k + 1)·R - 1 have the example that position k would have without, each with an
    augmentation of its own (Hoffer et al., "Augment Your Batch", CVPR 2020).

    An unreadable image file is replaced by the next readable one of its split and shape.

    Where `normalized` is False and normalisation would be the last that is done to the images, they are left as uint8,
    a quarter of the memory, and the iterator's `normalize` is what is still to be done, by the training step.

    Raises:
        UserError: the data cannot be opened, or `batch_size` is not a multiple of `process_count`.
    """
    _check_share(batch_size, process_index, process_count)
    source = open_source(config, examples, "train")
    streams, sizes, normalize = [], [], None
    groups = groups_of(examples, source)
    for number, group in enumerate(groups):
        part = _Readable(group.of(source))
        transforms = group.examples.training(config, source)
        if len(groups) == 1:
            transforms, normalize = _without_normalize(transforms)
        streams.append(_endless(part, transforms, _group_seed(seed, number), config.repeats))
        sizes.append(len(part))
    dataset = streams[0] if len(streams) == 1 else InTurns(streams, sizes, batch_size)
    return _batches(dataset, config, batch_size, process_index, process_count, normalize, normalized=normalized)


def eval_batches(
    config: DataConfig, examples: Examples, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> BatchIterator:
    """Every evaluation example once over all processes, in order; every process gets the same number of full batches.

    Examples of another shape (`Grouped`) follow those of the first. The last global batch of each shape is filled up
    with blank examples whose `mask` is False; one of these also replaces an unreadable image file. Processes share a
    batch as in `train_iterator`.

    Raises:
        UserError: the data cannot be opened, or `batch_size` is not a multiple of `process_count`.
    """
    _check_share(batch_size, process_index, process_count)
    source = open_source(config, examples, "eval")
    parts, normalize = [], None
    groups = groups_of(examples, source)
    for group in groups:
        padded = _Padded(group.of(source), batch_size, group.examples.blank(config, source))
        transforms = group.examples.evaluation(config, source)
        if len(groups) == 1:
            transforms, normalize = _without_normalize(transforms)
        parts.append(grain.MapDataset.source(padded).apply(transforms))
    dataset = parts[0] if len(parts) == 1 else grain.MapDataset.concatenate(parts)
    return _batches(dataset, config, batch_size, process_index, process_count, normalize)


def _endless(part: "_Readable", transforms: Sequence[Any], seed: int, repeats: int) -> grain.MapDataset[Any]:
    """Training examples, shuffled and changed. A crop that comes first is known to who decodes the image."""
    first = transforms[0] if transforms else None
    if isinstance(first, RandomResizedCrop) and isinstance(part.source, CropSource):
        dataset, transforms = grain.MapDataset.range(len(part)), [_ReadAndCrop(part, first), *transforms[1:]]
    else:
        dataset = grain.MapDataset.source(part)
    endless: Any = dataset.seed(seed).shuffle().repeat()
    if repeats > 1:
        endless = grain.MapDataset.source(_Repeated(endless, repeats)).seed(seed)
    return endless.apply(transforms)


def _without_normalize(transforms: Sequence[Any]) -> tuple[Sequence[Any], Normalize | None]:
    """The transforms but a last `Normalize`, which can write into the batch instead."""
    last = transforms[-1] if transforms else None
    return (transforms[:-1], last) if isinstance(last, Normalize) else (transforms, None)


def _group_seed(seed: int, group: int) -> int:
    """Of the shuffles and augmentations of a group."""
    return seed if group == 0 else int(np.random.SeedSequence((seed, group)).generate_state(1)[0])


def _batches(
    dataset: grain.MapDataset[Any] | InTurns,
    config: DataConfig,
    batch_size: int,
    process_index: int,
    process_count: int,
    normalize: Normalize | None,
    *,
    normalized: bool = True,
) -> BatchIterator:
    here, later = (normalize, None) if normalized else (None, normalize)
    share = batch_size // process_count
    batches = grain.MapDataset.source(_ProcessBatches(dataset, batch_size, process_index * share, share, here))
    threads = _THREADS if config.image_size >= _THREADED_SIDE and config.workers == 0 else 1
    return BatchIterator(batches, workers=config.workers, threads=threads, normalize=later)


def _check_share(batch_size: int, process_index: int, process_count: int) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"`batch_size` must be a multiple of the number of processes, {process_count}, got {batch_size}."
        )
    if not 0 <= process_index < process_count:
        raise UserError(f"`process_index` must be in [0, {process_count}), got {process_index}.")


class _ProcessBatches:
    """The rows `[start, start + count)` of every global batch.

    Args:
        dataset: the examples of all batches.
        batch_size: of a global batch.
        start: the first row.
        count: of the rows.
        normalize: what is still to be done to the images.
    """

    def __init__(
        self,
        dataset: grain.MapDataset[Any] | InTurns,
        batch_size: int,
        start: int,
        count: int,
        normalize: Normalize | None,
    ):
        self._dataset, self._batch_size, self._start, self._count = dataset, batch_size, start, count
        self._normalize = normalize
        self._memory = ReusedMemory()

    def __len__(self) -> int:
        return len(self._dataset) // self._batch_size

    def __getitem__(self, index: int) -> HostBatch:
        batch: HostBatch = {}
        for row in range(self._count):
            try:
                example: Any = self._dataset[index * self._batch_size + self._start + row]
                if row == 0:
                    batch = {name: self._empty(name, value) for name, value in example.items()}
                for name, value in example.items():
                    array = to_array(value)
                    if array.shape != batch[name].shape[1:]:
                        raise ValueError(f"`{name}` has the shape {array.shape}, not {batch[name].shape[1:]}")
                    if name == "image" and self._normalize is not None:
                        self._normalize.write(array, batch[name][row])
                    else:
                        batch[name][row] = array
            except UserError:
                raise
            except Exception as error:
                raise DataError(
                    f"Cannot prepare {_example()}: {type(error).__name__}: {one_line(error)}. Mend it or remove it."
                ) from error
        return batch

    def _empty(self, name: str, value: Any) -> np.ndarray:
        array = to_array(value)
        dtype = np.dtype(np.float32) if name == "image" and self._normalize is not None else array.dtype
        return self._memory.empty((self._count, *array.shape), dtype)


class _Readable:
    """A training source without gaps: the next readable example replaces an unreadable one."""

    def __init__(self, source: Any):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.first_readable(index, self.source.__getitem__)

    def first_readable(self, index: int, read: Callable[[int], dict[str, Any] | None]) -> dict[str, Any]:
        """The example of the index, or of the next one of which `read` returns one."""
        for step in range(len(self)):
            number = (index + step) % len(self)
            _EXAMPLE.set((self.source, number))
            example = read(number)
            if example is not None:
                return _masked(example, True)
        raise UserError("There must be a readable image to train on, got none.")


class _ReadAndCrop(grain.transforms.RandomMap):
    """From the index of an example to the example, cropped as `RandomResizedCrop` crops a whole one."""

    def __init__(self, part: _Readable, crop: RandomResizedCrop):
        self._part, self._crop = part, crop

    def random_map(self, element: int, rng: np.random.Generator) -> Any:
        start = rng.bit_generator.state

        def read(index: int) -> dict[str, Any] | None:
            rng.bit_generator.state = start  # an unreadable file has drawn nothing
            return self._part.source.read(index, self._crop.crop(rng))

        return self._part.first_readable(element, read)


class _Repeated:
    """A dataset whose examples come several times each, in a row."""

    def __init__(self, dataset: grain.MapDataset[Any], repeats: int):
        self._dataset, self._repeats = dataset, repeats

    def __len__(self) -> int:
        return len(self._dataset)  # endless as it is

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index // self._repeats]


class _Padded:
    """An evaluation source as long as its batches: padding and unreadable examples have `mask` False."""

    def __init__(self, source: Source, batch_size: int, blank: dict[str, Any]):
        self._source = source
        self._length = -(-len(source) // batch_size) * batch_size
        self._blank = blank

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        _EXAMPLE.set((self._source, index))
        example = self._source[index] if index < len(self._source) else None
        return _masked(self._blank, False) if example is None else _masked(example, True)


def _example() -> str:
    """What this thread prepares, in an error."""
    if _EXAMPLE.get(None) is None:
        return "an example"
    source, index = _EXAMPLE.get()
    return source.describe(index)


def _masked(example: dict[str, Any], mask: bool) -> dict[str, Any]:
    return example | {"mask": np.bool_(mask)}
