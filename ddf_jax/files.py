"""Atomic, durable writing of files and folders, checksums of a folder, locks, and folders that can be written.

A file's content survives a power cut when the file is synced, its name when the folder is. Both are done before
anything relies on them.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddf_jax.errors import UserError

_log = logging.getLogger(__name__)

_CHECKSUMS = "checksums.json"
_DELAYS = (0.1, 0.5, 2.0)  # seconds before each further attempt to read


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes `content` so that a reader, or a crash or power cut at any moment, leaves the old file or the new one."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes one JSON document atomically; infinities and NaN, which JSON lacks, are an error."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Makes durable what was created, renamed or removed in a folder."""
    _sync(folder)


def sync_tree(folder: Path) -> None:
    """Makes durable a folder with every file and folder in it, but not its own name, which is its parent's."""
    for path, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(path, name))
        sync_folder(Path(path))


def make_folder(folder: Path) -> None:
    """Creates a folder and the missing ones above it, durably."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def unused(path: Path) -> Path:
    """`path`, or where there is something of that name, the first of `<path>-2`, `<path>-3`, … that is free."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not name.exists())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of a file system that syncs no folders
            raise
    finally:
        os.close(descriptor)


def write_checksums(folder: Path) -> None:
    """Writes the SHA-256 of every file in a folder to `checksums.json` there."""
    write_json(folder / _CHECKSUMS, _checksums(folder))


def damage(folder: Path) -> str | None:
    """How a folder's files differ from its `checksums.json`, or None where they do not.

    Raises:
        OSError: reading failed, and again seconds later: that says nothing about the files.
    """
    for delay in _DELAYS:
        try:
            return _difference(folder)
        except OSError as error:
            _log.warning("Cannot read %s (%s); trying again in %s s.", folder, error, delay)
            time.sleep(delay)
    return _difference(folder)


def _difference(folder: Path) -> str | None:
    try:
        expected: dict[str, str] = dict(json.loads((folder / _CHECKSUMS).read_bytes()))
        found = _checksums(folder)
    except FileNotFoundError as error:  # of the checksums, or of a file that went away after it was listed
        return f"{Path(error.filename).name} is missing"
    except (ValueError, TypeError) as error:
        return f"{_CHECKSUMS} cannot be read ({error})"
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            return f"{name} " + ("is missing" if name not in found else "is not the file that was saved")
    return None


def _checksums(folder: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _CHECKSUMS):
        with path.open("rb") as file:
            sums[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Waits for the lock of a file, which one process has at a time; the operating system frees it with the process.

    Yields whether there is one: some file systems have no locks.
    """
    make_folder(path.parent)
    with path.open("a") as file:
        try:
            import fcntl  # not on Windows

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError) as error:
            _log.warning("%s cannot be locked (%s).", path, error)
            yield False
        else:
            yield True


def make_writable(directory: Path) -> None:
    """Creates `directory` where it is missing, and checks that files can be written there.

    Raises:
        UserError: they cannot.
    """
    probe = directory / ".writable"
    try:
        make_folder(directory.absolute())
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"Cannot write to the run's folder {directory}: {reason}. Choose another with --workdir."
        ) from None
