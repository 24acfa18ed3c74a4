"""A run's folder, `runs/<name>/`: its small files, its lock, and whether it belongs to a recipe."""

import contextlib
import datetime
import importlib.metadata
import json
import logging
import os
import platform
import socket
import time
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ddf_jax.errors import RunError
from ddf_jax.files import make_writable, sync_folder, write_atomically, write_json
from ddf_jax.training.processes import check_same_in_all_processes
from ddf_jax.training.recipe import Recipe, recipe_from_json, recipe_to_json
from ddf_jax.training.tasks import Task, summary_line

_log = logging.getLogger(__name__)

_ATTEMPTS = 5
_NO_FOLDER, _LOCKED, _REFUSED = range(3)

_PACKAGES = ("ddf-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.curves = path / "curves.png"
        self._pictures = path / "pictures"
        self._recipe = path / "recipe.json"
        self._summary = path / "summary.json"

    def summary(self, task: Task) -> dict[str, Any] | None:
        """The summary of a run of a task that has ended, or None; an unreadable one is written again."""
        if not self._summary.exists():
            return None
        try:
            summary = dict(json.loads(self._summary.read_bytes()))
            _ = summary["steps"], summary_line(task, summary)  # what is reported of it
            return summary
        except (ValueError, TypeError, KeyError) as error:
            _log.warning("%s cannot be read (%s) and is written again.", self._summary, error)
            return None

    def recipe(self) -> Recipe:
        """The recipe that the run was started with.

        Raises:
            RunError: there is no run here, or its recipe cannot be read.
        """
        if not self._recipe.is_file():
            raise RunError(f"There is no run in {self.path}: it has no {self._recipe.name}. `ddf train` makes one.")
        try:
            return recipe_from_json(self._recipe.read_text())
        except RunError as error:
            raise RunError(f"{self._recipe}: {error}") from None

    def create(self) -> None:
        """Makes the folder, or finds that it can be written."""
        make_writable(self.path)

    def begin(self, recipe: Recipe) -> None:
        """Marks the run as not finished, and keeps the recipe with its results."""
        if self._summary.exists():
            self._summary.unlink()
            sync_folder(self.path)
        write_atomically(self._recipe, recipe_to_json(recipe))

    def write_picture(self, step: int, png: bytes) -> None:
        """Keeps the picture of the evaluation after `step`."""
        self._pictures.mkdir(exist_ok=True)
        write_atomically(self._pictures / f"{step:06d}.png", png)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Marks the run as finished."""
        write_json(self._summary, summary)


class RunLock(contextlib.AbstractContextManager["RunLock"]):
    """The right to write in a run's folder, of one launch at a time; the operating system frees it with the process.

    The first process of a launch holds it for all. The file `.lock` names the holder, and is removed on exit.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / ".lock"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Takes the lock, unless this launch has it already or there is no folder yet; for all processes.

        Raises:
            RunError: another launch trains in this folder, or a process does not see it.
        """
        holder = None
        if jax.process_index() == 0 and self._file is None and self._folder.is_dir():
            holder = self._try()
        state = _REFUSED if holder else _LOCKED if self._file else _NO_FOLDER
        state = int(multihost_utils.broadcast_one_to_all(np.int32(state)))
        if state == _REFUSED:
            raise RunError(
                f"{self._folder} is being trained by {holder or 'another launch'}. Wait for it, stop it, or choose "
                f"another --workdir."
            )
        if state == _LOCKED:
            check_same_in_all_processes({f"run folder {self._folder}": self._read()})

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with self._file, contextlib.suppress(OSError):  # one that stays locks nothing
                self._path.unlink(missing_ok=True)

    def _read(self) -> str:
        """Who has the lock, as this process reads it in the folder; empty where it sees no such file."""
        for _ in range(_ATTEMPTS):  # a file of another host may be seen late
            with contextlib.suppress(OSError):
                return self._path.read_text()
            time.sleep(1)
        return ""

    def _try(self) -> str | None:
        """Takes the lock, or returns who has it."""
        while self._file is None:
            file = self._path.open("a+")
            if not self._lock(file):
                with file:
                    file.seek(0)
                    return file.read().strip() or "another launch"
            # The holder before may have removed the file between its opening and its locking here.
            if self._path.exists() and os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                self._file = file
        now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}")
        self._file.flush()
        return None

    def _lock(self, file: IO[str]) -> bool:
        """Whether nobody else has a lock on the file. Where there are no locks, training does without."""
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except (ImportError, OSError) as error:
            _log.warning("%s cannot be locked (%s): do not train in it twice at a time.", self._folder, error)
        return True


def environment(mesh: Mesh) -> dict[str, Any]:
    """Kind and number of devices, number of processes, and versions: the last entries of a summary."""
    device = mesh.devices.flat[0].device_kind
    return {"device": device, "devices": mesh.size, "processes": jax.process_count(), "versions": versions()}


def versions() -> dict[str, str]:
    """Python and the packages whose version may change a result; one that is not installed as a package is left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
