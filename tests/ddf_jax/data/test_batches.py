"""The iterator over batches, apart from any dataset."""

import multiprocessing
import signal
import sys
import threading
from pathlib import Path

import grain
import numpy as np
import pytest

from ddf_jax.data.batches import BatchIterator
from ddf_jax.signals import STOP_SIGNALS


def test_reading_to_the_end_ends_the_workers():
    iterator = BatchIterator(grain.MapDataset.range(5).batch(2), workers=1, threads=1)
    first = next(iterator)
    assert multiprocessing.active_children()
    assert [np.asarray(batch).tolist() for batch in (first, *iterator)] == [[0, 1], [2, 3], [4]]
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_is_deaf_to_signals_that_ask_to_stop_from_birth_and_this_process_is_not():
    """A signal to all processes of a run must not end a worker that still imports: that would be a crash."""
    iterator = BatchIterator(grain.MapDataset.range(5).batch(2), workers=1, threads=1)
    first = threading.Thread(target=next, args=(iterator,))
    first.start()
    deaf = set()
    while first.is_alive():
        assert not {*STOP_SIGNALS} & signal.pthread_sigmask(signal.SIG_BLOCK, ())
        for child in multiprocessing.active_children():
            deaf |= {_deaf_to(child.pid, number) for number in STOP_SIGNALS}
        first.join(0.001)
    iterator.close()
    assert deaf == {True}


def _deaf_to(process: int | None, number: signal.Signals) -> bool:
    """Whether a process blocks or ignores a signal."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return any(int(fields[name], 16) >> (number - 1) & 1 for name in ("SigBlk", "SigIgn"))
