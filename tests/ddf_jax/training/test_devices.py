import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

from ddf_jax.training.devices import (
    DEPTH,
    InFlight,
    check_batch_size,
    check_same_in_all_processes,
    data_mesh,
    device_batches,
    digests,
    global_batch,
    initialize_processes,
)
from ddf_jax.training.errors import RunError

HEARTBEAT = {"heartbeat_timeout_seconds": 20}
ADDRESS = {"JAX_COORDINATOR_ADDRESS": "host:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


@pytest.mark.parametrize(
    ("environment", "calls"),
    [
        ({}, []),
        (ADDRESS, [(("host:1234",), {"num_processes": 4, "process_id": 3, **HEARTBEAT})]),
        ({"SLURM_STEP_NUM_TASKS": "8"}, [((), HEARTBEAT)]),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}, []),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, [((), HEARTBEAT)]),
        ({"JAX_COORDINATOR_ADDRESS": "host:1234", "SLURM_STEP_NUM_TASKS": "8"}, [((), HEARTBEAT)]),
    ],
)
def test_the_environment_names_the_processes_to_join(
    environment: dict[str, str], calls: list[object], monkeypatch: pytest.MonkeyPatch
):
    made = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kwargs: made.append((args, kwargs)))
    for name in (*ADDRESS, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    initialize_processes()
    assert made == calls


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "host:1234"}, "JAX_NUM_PROCESSES and JAX_PROCESS_ID are not set"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "but JAX_COORDINATOR_ADDRESS is not set. Set all, or none"),
        (ADDRESS | {"JAX_PROCESS_ID": "4"}, "must be a number below `JAX_NUM_PROCESSES`, got 4 of 4"),
        (ADDRESS | {"JAX_NUM_PROCESSES": "two"}, "must be a number below `JAX_NUM_PROCESSES`, got 3 of two"),
    ],
)
def test_processes_that_cannot_be_joined_are_an_error(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("joined"))
    for name in (*ADDRESS, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=message):
        initialize_processes()


@pytest.mark.parametrize("seed", [1, 9])
def test_a_process_that_was_started_otherwise_is_named_in_all(seed: int, monkeypatch: pytest.MonkeyPatch):
    third = digests([f"seed {seed}", "jax 1"])
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: np.stack([mine, mine, third]))
    refused = pytest.raises(RunError, match="must have the same recipe, but process 2 differs from process 0")
    with refused if seed == 9 else contextlib.nullcontext():
        check_same_in_all_processes({"recipe": "seed 1", "versions": "jax 1"})


def test_a_batch_is_split_evenly_over_the_devices():
    images = np.arange(16 * 3, dtype=np.float32).reshape(16, 3)
    batch = global_batch({"image": images}, data_mesh())
    assert [shard.data.shape for shard in batch["image"].addressable_shards] == [(2, 3)] * 8
    np.testing.assert_array_equal(batch["image"], images)


def test_a_batch_that_does_not_divide_is_refused():
    check_batch_size(24, data_mesh())
    with pytest.raises(
        RunError, match="multiple of the number of devices, 8, so that each holds equally many examples; g"
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
