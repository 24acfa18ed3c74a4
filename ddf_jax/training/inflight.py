"""A short queue between a host that runs ahead and devices that work behind it."""

from collections import deque
from typing import Generic, TypeVar

import jax

Result = TypeVar("Result")

DEPTH = 2  # the devices always have a next step to start, and what they hold for steps not yet run stays bounded


class InFlight(Generic[Result]):
    """Hands results over `DEPTH` pushes after they were started, so that waiting for one never idles the devices."""

    def __init__(self) -> None:
        self._started: deque[Result] = deque()

    def push(self, result: Result) -> list[Result]:
        """Adds a pytree of arrays still being computed; returns the oldest, on the host, once there are too many."""
        for leaf in jax.tree.leaves(result):
            leaf.copy_to_host_async()
        self._started.append(result)
        return self._take(len(self._started) - DEPTH)

    def drain(self) -> list[Result]:
        """Waits for all that is left, oldest first."""
        return self._take(len(self._started))

    def _take(self, count: int) -> list[Result]:
        return [jax.device_get(self._started.popleft()) for _ in range(count)]
