"""How long a run has worked, over all its launches."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Wall-clock seconds of this launch, added to those that a checkpoint remembers of launches before.

    What a killed launch did after its last checkpoint is done again, and only the second time counts.
    """

    def __init__(self) -> None:
        self._seconds = self._training_seconds = 0.0
        self._start = time.perf_counter()
        self._training_start: float | None = None

    def go_on_from(self, seconds: float, training_seconds: float) -> None:
        """Adds the seconds of earlier launches."""
        self._seconds += seconds
        self._training_seconds += training_seconds

    @property
    def seconds(self) -> float:
        """All time so far: compiling, training, evaluating, saving."""
        return self._seconds + time.perf_counter() - self._start

    @property
    def training_seconds(self) -> float:
        """Of these, the time spent in training steps."""
        running = 0.0 if self._training_start is None else time.perf_counter() - self._training_start
        return self._training_seconds + running

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Counts the time inside as training."""
        self._training_start = time.perf_counter()
        try:
            yield
        finally:
            self._training_seconds, self._training_start = self.training_seconds, None
