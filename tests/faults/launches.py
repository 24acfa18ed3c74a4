"""`ddf` commands and functions in forks of this process, which has imported everything and started nothing.

Importing JAX and this project takes seconds, a fork milliseconds. It is sound while there is one thread and no JAX
backend, which each fork checks.
"""

import atexit
import contextlib
import importlib
import itertools
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jax._src import xla_bridge

from ddf_jax.cli import main

T = TypeVar("T")

GRACE = 30  # seconds in which every process ends after a fault, in addition to the time of its training
_NUMBERS = itertools.count()


def import_everything() -> None:
    """Imports what launches import."""
    ours = ("cli.arguments", "cli.train", "cli.evaluate", "recipes", "models", "training.train", "training.run")
    data = ("data.examples", "data.image_folder", "data.tfds_source", "data.depth_source")
    others = ("tensorboardX", "tqdm", "matplotlib.figure", "matplotlib.backends.backend_agg")
    for module in (*(f"ddf_jax.{name}" for name in (*ours, *data)), *others):
        importlib.import_module(module)


class Ended(NamedTuple):
    """A process that has ended; `status` is negative where a signal ended it."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def error(self) -> str:
        """The last line on standard error."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


class Launch:
    """A `ddf` command in a process of its own.

    Args:
        folder: its working directory.
        words: the words after `ddf`.
        prepare: called in the process before the command.
        environment: variables of the process.
    """

    def __init__(
        self,
        folder: Path,
        words: Sequence[str],
        prepare: Callable[[], None] = lambda: None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = folder / f"launch-{next(_NUMBERS)}"
        self._start = time.monotonic()

        def run() -> int:
            os.chdir(folder)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the driver without
            os.environ.update(environment or {})
            for descriptor, name in enumerate((os.devnull, f"{self._log}.out", f"{self._log}.err")):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), descriptor)
            prepare()
            return main(words)

        self.pid = fork(run)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    def wait_until_stopped(self, limit: float) -> None:
        """Waits for the process to stop itself with SIGSTOP."""
        status = _wait(self.pid, limit, os.WUNTRACED)
        assert os.WIFSTOPPED(status), f"ended with {os.waitstatus_to_exitcode(status)} instead of stopping"

    def wait(self, limit: float) -> Ended:
        """Waits for the end of the process."""
        code = os.waitstatus_to_exitcode(_wait(self.pid, limit))
        out, err = (Path(f"{self._log}.{name}").read_text(errors="replace") for name in ("out", "err"))
        return Ended(code, out, err, time.monotonic() - self._start)


def in_child(function: Callable[..., T], *arguments: Any, limit: float = 120) -> T:
    """The result of a function that may start JAX, computed in a process of its own."""
    reading, writing = os.pipe()

    def run() -> int:
        os.close(reading)
        try:
            result = True, function(*arguments)
        except BaseException:
            result = False, traceback.format_exc()
        with os.fdopen(writing, "wb") as file:
            pickle.dump(result, file)
        return 0

    pid = fork(run)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    _wait(pid, limit)
    assert data, f"a process that was to call {function.__name__} died"
    fine, result = pickle.loads(data)
    assert fine, result
    return result


@contextlib.contextmanager
def ended_at_exit(*launches: Launch) -> Iterator[None]:
    """Kills what still runs at the end."""
    try:
        yield
    finally:
        for launch in launches:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                if os.waitpid(launch.pid, os.WNOHANG)[0] == 0:
                    launch.send(signal.SIGKILL)
                    os.waitpid(launch.pid, 0)


def fork(run: Callable[[], int]) -> int:
    """Calls a function in a fork, which then ends as a program does."""
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else threading.active_count()
    assert threads == 1, f"a process with {threads} threads cannot be forked"
    assert not xla_bridge._backends, "a process that has started JAX cannot be forked"
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    status = 1
    try:
        status = run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[reportAttributeAccessIssue]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)


def _wait(pid: int, limit: float, options: int = 0) -> int:
    """The status of a process that ends within `limit` seconds; it is killed, and that is an error, if it does not."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, options | os.WNOHANG)
        if done:
            return status
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"a process still ran after {limit:.0f} s")
