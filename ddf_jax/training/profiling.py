"""Where a step's time goes: seconds by part, and a window of JAX's profiler."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from ddf_jax.errors import RunError
from ddf_jax.training.metrics import ornament

WARM_STEPS = 10  # ahead of the window: the first steps of a launch allocate and fill caches


class StepTimes:
    """Seconds of the host in the parts of a training step: `input`, `devices` and `log`.

    The host runs ahead of the devices. Where it waits for the input and not for the devices, these wait too.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time inside."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def take(self, steps: int) -> dict[str, float]:
        """Milliseconds per step by part, such as `input_ms`, since the last call so many steps ago."""
        found = {f"{name}_ms": round(1e3 * seconds / steps, 3) for name, seconds in self._seconds.items()}
        self._seconds.clear()
        return found


class ProfilerWindow(contextlib.AbstractContextManager["ProfilerWindow"]):
    """Records some steps of a launch with JAX's profiler, after its first ten, for TensorBoard and Perfetto.

    Args:
        folder: where `plugins/profile/<time>/` goes: TensorBoard opens the folder, Perfetto the `.trace.json.gz` in it.
        steps: to record; 0: none.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        if steps < 0:
            raise RunError(f"`profile` must be a number of steps from 0 on, got {steps}.")
        self._folder, self._steps = folder, steps if jax.process_index() == 0 else 0
        self._taken, self._running = 0, False

    def before_step(self, wait: Callable[[], None]) -> None:
        """To be called before each step; `wait` waits for all steps so far."""
        if self._steps and self._taken in (WARM_STEPS, WARM_STEPS + self._steps):
            wait()
            if self._running:
                self._stop()
            else:
                with ornament("Cannot start the profiler"):
                    jax.profiler.start_trace(str(self._folder), create_perfetto_trace=False)
                    self._running = True
        self._taken += 1

    def __exit__(self, *_: object) -> None:
        if self._running:
            self._stop()

    def _stop(self) -> None:
        self._running = False
        with ornament("Cannot write the profile"):
            jax.profiler.stop_trace()
