"""Batches on the devices one step ahead of their use, each with the state of the data behind it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from ddf_jax.training.mesh import global_batch


class ResumableIterator(Protocol):
    """An endless stream of this process's batches that can be told where to go on."""

    def __next__(self) -> Mapping[str, np.ndarray]: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


class DeviceBatch(NamedTuple):
    """A global batch, and the data's state that gives the batch after it."""

    arrays: dict[str, jax.Array]
    state_after: dict[str, Any]


def device_batches(iterator: ResumableIterator, mesh: Mesh) -> Iterator[DeviceBatch]:
    """Puts batches on the devices; while one is trained on, the next is read and copied."""

    def read() -> DeviceBatch:
        arrays = global_batch(next(iterator), mesh)
        return DeviceBatch(arrays, iterator.get_state())

    ahead = read()
    while True:
        current, ahead = ahead, read()
        yield current
