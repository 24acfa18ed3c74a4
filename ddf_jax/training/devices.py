"""Processes and devices: parameters are on every device, batches split over all; the host runs two steps ahead."""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ddf_jax.training.errors import RunError

BATCH_AXIS = "data"

_NAMES_OF_PROCESSES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_HEARTBEAT_SECONDS = 20  # without a sign of life of a process, after which the others end

Devices = Sequence[Any]
"""Some of `jax.devices()`."""


def initialize_processes() -> None:
    """Joins this process to the others of a multi-process run; alone, it does nothing.

    Called once, before any other use of JAX. The environment names the run to join: `JAX_COORDINATOR_ADDRESS`
    (host:port of process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` on any machine, or a launcher that JAX knows
    (Slurm's `srun`, Open MPI's `mpirun`) with more than one process.

    Raises:
        RunError: some of the three are set, but not all, and no launcher gives the others.
    """
    environment = os.environ
    if jax.distributed.is_initialized():
        return
    given = {name: environment[name] for name in _NAMES_OF_PROCESSES if name in environment}
    if len(given) == len(_NAMES_OF_PROCESSES):
        address, count, index = given.values()
        if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
            raise RunError(f"`JAX_PROCESS_ID` must be a number below `JAX_NUM_PROCESSES`, got {index} of {count}.")
        jax.distributed.initialize(
            address, num_processes=int(count), process_id=int(index), heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
        )
    elif any(int(environment.get(name, "1")) > 1 for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")):
        jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
    elif given:
        missing = [name for name in _NAMES_OF_PROCESSES if name not in given]
        raise RunError(
            f"Several processes need all of {', '.join(_NAMES_OF_PROCESSES)}, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set. Set all, or none to train with one process."
        )


def check_same_in_all_processes(facts: Mapping[str, str]) -> None:
    """Compares what the processes of a run were started with; for all processes.

    Args:
        facts: names and values; a process may lack none.

    Raises:
        RunError: in all processes, where a value differs in one.
    """
    if jax.process_count() == 1:
        return
    of_all = multihost_utils.process_allgather(digests(facts.values()))  # [processes, facts]
    for name, values in zip(facts, of_all.T, strict=True):
        if others := [str(index) for index, value in enumerate(values) if value != values[0]]:
            raise RunError(
                f"All processes of a run must have the same {name}, but process {', '.join(others)} differs from "
                f"process 0. Start the same command everywhere."
            )


def digests(values: Iterable[str]) -> np.ndarray:
    """A number for each value, uint32 [n], by which processes compare what is too long to send."""
    return np.array([int.from_bytes(hashlib.sha256(value.encode()).digest()[:4]) for value in values], np.uint32)


def data_mesh(devices: Devices | None = None) -> Mesh:
    """A mesh of one axis, `data`, over `devices` (default: all devices of all processes)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (BATCH_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_split(mesh: Mesh) -> NamedSharding:
    """The first dimension divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXIS))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises `RunError` where the devices cannot share the batch evenly."""
    if batch_size % mesh.size:
        raise RunError(
            f"`batch_size` must be a multiple of the number of devices, {mesh.size}, so that each holds equally many "
            f"examples; got {batch_size}."
        )


def global_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts each process's share [b, …] on its own devices as one global array [B, …], split over the mesh."""
    sharding = batch_split(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, values) for name, values in batch.items()}


class ResumableIterator(Protocol):
    """An endless stream of this process's batches whose position can be saved and set."""

    def __next__(self) -> Mapping[str, np.ndarray]: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


class DeviceBatch(NamedTuple):
    """A global batch, and the state of the data that gives the batch after it."""

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


T = TypeVar("T")

DEPTH = 2  # the devices always have a next step to start, and what they hold for steps not yet run stays bounded


class InFlight(Generic[T]):
    """Returns pytrees of arrays `DEPTH` pushes after they were started: waiting for one never idles the devices."""

    def __init__(self) -> None:
        self._started: deque[T] = deque()

    def push(self, arrays: T) -> list[T]:
        """Adds a pytree of arrays still being computed; returns the oldest, on the host, once there are too many."""
        for leaf in jax.tree.leaves(arrays):
            leaf.copy_to_host_async()
        self._started.append(arrays)
        return self._take(len(self._started) - DEPTH)

    def drain(self) -> list[T]:
        """Waits for all that is left, oldest first."""
        return self._take(len(self._started))

    def _take(self, count: int) -> list[T]:
        return [jax.device_get(self._started.popleft()) for _ in range(count)]
