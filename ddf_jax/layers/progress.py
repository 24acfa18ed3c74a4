"""How far training has come, for layers with a value that follows a schedule."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

_PROGRESS: contextvars.ContextVar[Any] = contextvars.ContextVar("progress", default=None)


@contextlib.contextmanager
def training_progress(progress: Any) -> Iterator[None]:
    """Within it, `annealed` has the value of this share of the training, 0 to 1. Outside, training is over.

    It must be entered within the function that is compiled: `jax.jit` does not see it.
    """
    token = _PROGRESS.set(progress)
    try:
        yield
    finally:
        _PROGRESS.reset(token)


def annealed(start: float, end: float, *, share: float) -> Any:
    """A value that goes from `start` to `end` linearly, over this share of the training.

    >>> annealed(30.0, 1.0, share=0.1)
    1.0
    >>> with training_progress(0.05):
    ...     print(annealed(30.0, 1.0, share=0.1))
    15.5
    """
    progress = _PROGRESS.get()
    if progress is None or share == 0:
        return end
    return start + (end - start) * jnp.minimum(progress / share, 1.0)
