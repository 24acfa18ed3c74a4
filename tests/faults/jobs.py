"""Functions side by side in forks of this process, each with a limit of time and an end to what it started."""

import contextlib
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.launches import fork

_LIMIT = 500  # seconds of a job: more than all limits of the processes in it


class Finished(NamedTuple):
    """A job that has ended, well or not; `outcome` is what it returned, or the text of its error."""

    number: int
    ok: bool
    outcome: Any
    seconds: float


def run_jobs(functions: Sequence[Callable[[], Any]], folder: Path, *, at_once: int) -> Iterator[Finished]:
    """Calls functions, so many at a time, and yields how each ended, the first to end first."""
    waiting = list(enumerate(functions))[::-1]
    running: dict[int, tuple[int, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                index, function = waiting.pop()
                running[_start(function, folder / f"{index}.outcome")] = index, time.monotonic()
            for pid, (index, start) in list(running.items()):
                seconds = time.monotonic() - start
                if os.waitpid(pid, os.WNOHANG)[0] or seconds > _LIMIT:
                    del running[pid]
                    _end_group(pid)
                    yield Finished(index, *_outcome(folder / f"{index}.outcome"), seconds)
            time.sleep(0.05)
    finally:
        for pid in running:
            _end_group(pid)


def _start(function: Callable[[], Any], file: Path) -> int:
    def run() -> int:
        os.setsid()  # so that whatever it starts can be ended with it
        try:
            outcome = True, function()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            outcome = False, f"{type(error).__name__} ({Path(where.filename).name}:{where.lineno}): {error}"
        file.write_bytes(pickle.dumps(outcome))
        return 0

    return fork(run)


def _outcome(file: Path) -> tuple[bool, Any]:
    return pickle.loads(file.read_bytes()) if file.exists() else (False, f"died, or did not end within {_LIMIT} s")


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
