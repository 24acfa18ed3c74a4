"""How feature maps between the blocks of a network lie on the devices, where whoever calls it wants them so."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

from jax import Array

Placement = Callable[[Array], Array]

_PLACEMENT: contextvars.ContextVar[Placement | None] = contextvars.ContextVar("placement", default=None)


@contextlib.contextmanager
def feature_maps_placed(placement: Placement | None) -> Iterator[None]:
    """Within it, `placed` applies this function, such as a sharding constraint; with None it does nothing.

    It must be entered within the function that is compiled: `jax.jit` does not see it.
    """
    token = _PLACEMENT.set(placement)
    try:
        yield
    finally:
        _PLACEMENT.reset(token)


def placed(x: Array) -> Array:
    """A feature map [B, H, W, C] between two blocks, as `feature_maps_placed` wants it."""
    placement = _PLACEMENT.get()
    return x if placement is None else placement(x)
