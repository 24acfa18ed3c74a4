"""The iterator a training loop holds: threads or worker processes behind it, one number as its state."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from ddf_jax.data.transforms.normalization import Normalize
from ddf_jax.errors import DataError, UserError, one_line
from ddf_jax.signals import STOP_SIGNALS

# Batches that Grain's workers had made ahead lie in shared memory at the end. Python's tracker, a process that is
# started with these options, frees them and warns of it.
_LEFT_BEHIND = "ignore:resource_tracker:UserWarning"

HostBatch = dict[str, np.ndarray]


class BatchIterator(grain.DatasetIterator[HostBatch]):
    """Iterates over batches that can be computed in any order, from any step on.

    The state is `{"step": n}`, the number of batches taken, whatever prepares them: `threads` of this process, or as
    many in each of `workers` processes. These are spawned, for a fork of a process that has loaded JAX may deadlock.

    `len()` is the number of batches. `close()` ends threads and workers; reading to the end does so too.

    `normalize` is what is still to be done to the batches' images, uint8; None: nothing, they are float32.
    """

    def __init__(
        self,
        batches: grain.MapDataset[HostBatch],
        *,
        workers: int,
        threads: int,
        normalize: Normalize | None = None,
    ):
        super().__init__()
        self.normalize = normalize
        self._batches = batches
        self._workers = workers
        self._threads = threads
        self._step = 0
        self._running: list[grain.DatasetIterator[HostBatch]] = []  # none or one
        weakref.finalize(self, _close_all, self._running)  # at exit too, while Grain can still end its workers

    def __len__(self) -> int:
        return len(self._batches)

    def __next__(self) -> HostBatch:
        self._assert_not_closed()
        if self._step >= len(self):
            _close_all(self._running)
            raise StopIteration
        starts = not self._running
        if starts:
            self._running.append(self._start())
        try:
            with _stops_blocked() if starts and self._workers else contextlib.nullcontext():
                batch = next(self._running[0])
        except (StopIteration, UserError):
            raise
        except Exception as error:  # of Grain, as where a worker was killed
            advice = " `--data.workers 0` prepares them in the main process." if self._workers else ""
            raise DataError(f"Cannot prepare batch {self._step}: {one_line(error)}{advice}") from error
        self._step += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        return {"step": self._step}

    def set_state(self, state: dict[str, Any]) -> None:
        step = state.get("step")
        if not isinstance(step, int) or not 0 <= step <= len(self):
            raise UserError(f"The state must be {{'step': n}} with n from 0 to {len(self)}, got {state}.")
        _close_all(self._running)
        self._step = step

    def close(self) -> None:
        _close_all(self._running)
        super().close()

    def _start(self) -> grain.DatasetIterator[HostBatch]:
        # Batches are large, so few are made ahead: 256 images of 224 x 224 x 3 in float32 are 154 MB.
        read_options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=max(2, self._threads))
        batches = self._batches[self._step :].to_iter_dataset(read_options)
        if self._workers == 0:
            return iter(batches)
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads a flag of its own, which fails in a program without absl's main
        if _LEFT_BEHIND not in sys.warnoptions:
            sys.warnoptions.append(_LEFT_BEHIND)
        options = grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2)
        return iter(batches.mp_prefetch(options, worker_init_fn=_stay_with_parent))


def _close_all(iterators: list[grain.DatasetIterator[HostBatch]]) -> None:
    while iterators:
        iterators.pop().close()


@contextlib.contextmanager
def _stops_blocked() -> Iterator[None]:
    """Processes that are started in here have the signals blocked from birth; other threads of this one receive them.

    A terminal, Slurm or `timeout` sends a signal to all processes of a run. It would end a worker that is still
    importing, before `_stay_with_parent`, and the run would end as one whose worker crashed.
    """
    if not hasattr(signal, "pthread_sigmask"):  # as on Windows
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _stay_with_parent(worker_index: int, worker_count: int) -> None:
    """At a worker's start: leave signals to the parent, which saves and ends its workers, and follow it if it dies."""
    del worker_index, worker_count
    for stop in STOP_SIGNALS:
        signal.signal(stop, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
