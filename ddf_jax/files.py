"""Atomic, durable writing of small files, and folders that can be written."""

import json
import os
from pathlib import Path
from typing import Any

from ddf_jax.errors import UserError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes `content` so that a reader, or a crash at any moment, sees the old file or the new one."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes one JSON document atomically; infinities and NaN, which JSON lacks, are an error."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def make_writable(directory: Path) -> None:
    """Creates `directory` where it is missing, and checks that files can be written there.

    Raises:
        UserError: they cannot.
    """
    probe = directory / ".writable"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"Cannot write to the run's folder {directory}: {reason}. Choose another with --workdir."
        ) from None
