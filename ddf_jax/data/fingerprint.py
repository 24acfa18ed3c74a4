"""What identifies a run's data, so that a run is not resumed with other data unnoticed."""

import concurrent.futures
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddf_jax.data.config import DataConfig
from ddf_jax.data.sources import Examples, Split, open_source
from ddf_jax.errors import one_line

Fingerprint = dict[str, dict[str, str]]
"""For each split, the parts of the data by name, and a text for each that other data do not share."""

WHOLE = "dataset"
"""The name of the only part of data that are prepared as a whole."""

_SPLITS: tuple[Split, ...] = ("train", "eval")
_THREADS = 8
_READ_WHOLE = 64 << 10  # bytes, up to which a file is read to its end
_PIECE = 16 << 10  # bytes read at the start, in the middle and at the end of a larger one
_NAMED = 5  # classes in an error


def fingerprint(config: DataConfig, examples: Examples) -> Fingerprint:
    """What identifies the data of a recipe.

    Of a prepared dataset its name, version and recorded sizes; of a folder, for each class, a SHA-256 of its files'
    names and content. Where the data lie, when they were written and in which order they are listed has no part in it.

    Args:
        config: where the data are.
        examples: their kind.

    Raises:
        UserError: the data cannot be opened.
    """
    return {split: open_source(config, examples, split).fingerprint() for split in _SPLITS}


def difference(saved: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> str | None:
    """A clause that names the splits and the classes in which two fingerprints differ; None where they are equal.

    >>> difference({"train": {"cat": "1", "dog": "2"}}, {"train": {"cat": "1", "dog": "3"}})
    'the train split differs in dog'
    """
    clauses = []
    for split in dict.fromkeys([*saved, *now]):
        before, after = saved.get(split, {}), now.get(split, {})
        names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
        if names == [WHOLE]:
            clauses.append(f"the {split} split is {after.get(WHOLE)} instead of {before.get(WHOLE)}")
        elif names:
            more = f" and {len(names) - _NAMED} more classes" if len(names) > _NAMED else ""
            clauses.append(f"the {split} split differs in {', '.join(names[:_NAMED])}{more}")
    return ", and ".join(clauses) or None


def digest_classes(
    folder: Path, files: Sequence[str], labels: Sequence[int], class_names: Sequence[str]
) -> dict[str, str]:
    """A SHA-256 for each class of a folder.

    Args:
        folder: where the files lie.
        files: relative to it.
        labels: the number of the class of each file.
        class_names: the classes in the order of their numbers.
    """
    sums = [hashlib.sha256() for _ in class_names]
    in_order = sorted(range(len(files)), key=files.__getitem__)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        contents = threads.map(lambda index: _content(f"{folder}{os.sep}{files[index]}"), in_order)
        for index, content in zip(in_order, contents, strict=True):
            sums[labels[index]].update(os.fsencode(files[index]) + b"\0" + content)
    return {name: each.hexdigest() for name, each in zip(class_names, sums, strict=True)}


def describe_split(info: Any, split: str) -> str:
    """The name, version and split of a prepared dataset, and the sizes that it records of the files in use."""
    used = set(info.splits[split].filenames)
    sizes = ", ".join(
        f"{name} of {whole.num_examples} examples in {whole.num_shards} shards of {int(whole.num_bytes)} bytes"
        for name, whole in info.splits.items()
        if used.intersection(whole.filenames)
    )
    return f"{info.full_name} {split!r} ({sizes})"


def _content(file: str) -> bytes:
    """32 bytes that stand for the size and content of a file, or for the reason why it cannot be read."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            digest = hashlib.sha256(size.to_bytes(8, "little"))
            if size <= _READ_WHOLE:
                digest.update(os.pread(descriptor, size, 0))
            else:
                for start in (0, (size - _PIECE) // 2, size - _PIECE):
                    digest.update(os.pread(descriptor, _PIECE, start))
        finally:
            os.close(descriptor)
    except OSError as error:
        return hashlib.sha256((error.strerror or one_line(error)).encode()).digest()
    return digest.digest()
