"""Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP as a request that the run asks for between steps, agreed by all processes."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ddf_jax.training.devices import InFlight, global_batch, replicated


class StopRequest:
    """Inside `with StopRequest(mesh) as stop:`, a signal only raises a flag; a second Ctrl-C interrupts as ever.

    Args:
        mesh: the devices of all processes.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._asked = False
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._votes = InFlight[jax.Array]()
        self._sum = jax.jit(jnp.sum, out_shardings=replicated(mesh))

    def poll(self) -> bool:
        """Whether to stop: the same in every process, which must all poll equally often.

        With several processes the result is that of a few calls ago: their flags are summed on the devices between two
        steps, and nobody waits for the sum.
        """
        if jax.process_count() == 1:
            return self._asked
        flags = np.full(self._mesh.local_mesh.size, self._asked, np.int32)
        votes = self._sum(global_batch({"flags": flags}, self._mesh)["flags"])
        return any(earlier > 0 for earlier in self._votes.push(votes))

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python cannot handle signals
            for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):
                number = getattr(signal, name, None)  # Windows lacks some
                if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as nohup does with SIGHUP
                    self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # `print` may be what the signal interrupted, and cannot be entered twice.
        text = f"\n{signal.Signals(number).name}: saving before the end; Ctrl-C ends at once, without.\n"
        with contextlib.suppress(OSError):  # of a terminal that has gone
            os.write(2, text.encode())
