from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.training.batches import device_batches
from ddf_jax.training.inflight import DEPTH, InFlight
from ddf_jax.training.mesh import data_mesh


class Counting:
    """Batch n holds the number n everywhere."""

    def __init__(self) -> None:
        self.step = 0

    def __next__(self) -> Mapping[str, np.ndarray]:
        self.step += 1
        return {"image": np.full(8, self.step, np.float32)}

    def get_state(self) -> dict[str, Any]:
        return {"step": self.step}

    def set_state(self, state: dict[str, Any]) -> None:
        self.step = state["step"]


def test_every_batch_comes_with_the_state_that_gives_the_next_one():
    data = Counting()
    batches = device_batches(data, data_mesh())
    for n in (1, 2, 3):
        batch = next(batches)
        assert float(batch.arrays["image"][0]) == n
        assert data.step == n + 1  # the next one is on its way
    again = Counting()
    again.set_state(batch.state_after)
    assert float(next(device_batches(again, data_mesh())).arrays["image"][0]) == 4


def test_results_come_back_in_order_once_enough_are_in_flight():
    in_flight = InFlight[jax.Array]()
    returned = [in_flight.push(jnp.int32(n)) for n in range(5)]
    assert returned == [[]] * DEPTH + [[n] for n in range(5 - DEPTH)]
    assert in_flight.drain() == list(range(5 - DEPTH, 5))
    assert in_flight.drain() == []
