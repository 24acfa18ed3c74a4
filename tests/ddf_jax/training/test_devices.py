from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.errors import RunError
from ddf_jax.training.devices import (
    DEPTH,
    InFlight,
    check_batch_size,
    data_mesh,
    device_batches,
    global_batch,
)


def test_a_batch_is_split_evenly_over_the_devices():
    images = np.arange(16 * 3, dtype=np.float32).reshape(16, 3)
    batch = global_batch({"image": images}, data_mesh())
    assert [shard.data.shape for shard in batch["image"].addressable_shards] == [(2, 3)] * 8
    np.testing.assert_array_equal(batch["image"], images)


def test_a_batch_that_does_not_divide_is_refused():
    check_batch_size(24, data_mesh())
    with pytest.raises(
        RunError,
        match="number of devices that share it, 8, so that each holds equally many examples; got 20",
    ):
        check_batch_size(20, data_mesh())


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
    batches.close()
    assert data.step == 4  # the next one was on its way
    again = Counting()
    again.set_state(batch.state_after)
    assert float(next(device_batches(again, data_mesh())).arrays["image"][0]) == 4


def test_results_come_back_in_order_once_enough_are_in_flight():
    in_flight = InFlight[jax.Array]()
    returned = [in_flight.push(jnp.int32(n)) for n in range(5)]
    assert returned == [[]] * DEPTH + [[n] for n in range(5 - DEPTH)]
    assert in_flight.drain() == list(range(5 - DEPTH, 5))
    assert in_flight.drain() == []
