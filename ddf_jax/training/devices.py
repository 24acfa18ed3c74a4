"""The mesh of devices, and the batches that they share; the host runs two steps ahead."""

import math
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ddf_jax.errors import RunError
from ddf_jax.training.mesh_config import MeshConfig

AXES = ("data", "fsdp", "tensor", "height")
BATCH_AXES = ("data", "fsdp")

Devices = Sequence[Any]
"""Some of `jax.devices()`."""


def make_mesh(config: MeshConfig, devices: Devices | None = None) -> Mesh:
    """A mesh with the axes of `MeshConfig` over `devices` (default: all devices of all processes).

    Raises:
        UserError: the devices cannot be arranged so, or a process would hold a part of an example's channels alone.
    """
    devices = jax.devices() if devices is None else devices
    shape = config.shape(len(devices))
    mesh = jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)
    for together in mesh.devices.reshape(-1, config.tensor * config.height):
        if len({device.process_index for device in together}) > 1:
            raise RunError(
                f"`mesh.tensor` times `mesh.height` must divide the devices of a process, so that each process has "
                f"whole examples; got {config.tensor} × {config.height} with {len(devices)} devices in all."
            )
    return mesh


def data_mesh(devices: Devices | None = None) -> Mesh:
    """The mesh whose devices all hold all parameters."""
    return make_mesh(MeshConfig(), devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_split(mesh: Mesh) -> NamedSharding:
    """The first dimension divided over the devices that share a batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def rows_split(mesh: Mesh) -> NamedSharding:
    """Images or feature maps [B, H, W, C] divided over the batch and, over the axis `height`, over H."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES, "height" if mesh.shape["height"] > 1 else None))


def batch_shares(mesh: Mesh) -> int:
    """The parts that a batch is divided into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def compiler_options(mesh: Mesh) -> dict[str, int]:
    """Options of XLA for programs of a mesh.

    For a CPU it orders operations by default so that as many as can run in parallel, and keeps what is needed much
    later. In the order that needs least memory a detector's training step has 40 % less of temporary arrays, a
    classifier's 2 to 25 %, and they are as fast.
    """
    of_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_cpu_scheduler_type": 1} if of_cpu else {}  # CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED


def check_batch_size(batch_size: int, mesh: Mesh, microbatches: int = 1) -> None:
    """Raises `RunError` where the devices cannot share the batch, or each of its parts, evenly."""
    shares = batch_shares(mesh)
    if batch_size % (shares * microbatches):
        parts = f" times `microbatches`, {microbatches}" if microbatches > 1 else ""
        raise RunError(
            f"`batch_size` must be a multiple of the number of devices that share it, {shares}{parts}, so that each "
            f"holds equally many examples; got {batch_size}."
        )


def padded_rows(count: int, mesh: Mesh, most: int) -> int:
    """Rows of a batch for `count` examples, padding included: equally many on each device, but `most` there."""
    shares = batch_shares(mesh)
    return min(most, max(1, -(-count // shares))) * shares


def global_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts each process's share [b, …] on its own devices as one global array [B, …], split over the mesh."""
    sharding = batch_split(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, values) for name, values in batch.items()}


def local_rows(arrays: Any) -> Any:
    """This process's shards of arrays that are split by `batch_split`, a list for each array, in order."""

    def shards(array: jax.Array) -> list[jax.Array]:
        first = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
        return [first[start] for start in sorted(first)]

    return jax.tree.map(shards, arrays)


def join_local_rows(shards: Any) -> Any:
    """The rows of `local_rows`, on the host."""
    return jax.tree.map(np.concatenate, shards, is_leaf=lambda value: isinstance(value, list))


class ResumableIterator(Protocol):
    """An endless stream of this process's batches whose position can be saved and set."""

    def __next__(self) -> Mapping[str, np.ndarray]: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


class DeviceBatch(NamedTuple):
    """A global batch, and the state of the data that gives the batch after it."""

    arrays: dict[str, jax.Array]
    state_after: dict[str, Any]


class ChannelStatistics(Protocol):
    """Mean and standard deviation of pixels in [0, 1], a number for each channel."""

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...


def normalized(pixels: jax.Array, statistics: ChannelStatistics) -> jax.Array:
    """`(pixels / 255 - mean) / std` of uint8 [B, H, W, C], in float32."""
    mean, std = (jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1) for values in (statistics.mean, statistics.std))
    return (pixels.astype(jnp.float32) / 255 - mean) / std


def device_batches(iterator: ResumableIterator, mesh: Mesh) -> Generator[DeviceBatch]:
    """Puts batches on the devices; while one is trained on, a thread reads and copies the next.

    To be closed before the iterator is, so that nothing reads it any more.
    """

    def read() -> DeviceBatch:
        arrays = global_batch(next(iterator), mesh)
        return DeviceBatch(arrays, iterator.get_state())

    with ThreadPoolExecutor(1, thread_name_prefix="input") as thread:
        ahead = thread.submit(read)
        while True:
            current, ahead = ahead.result(), thread.submit(read)
            yield current


T = TypeVar("T")

DEPTH = 2  # the devices always have a next step to start, and what they hold for steps not yet run stays bounded


class InFlight(Generic[T]):
    """Returns pytrees of arrays `DEPTH` pushes after they were started: waiting for one never idles the devices."""

    def __init__(self) -> None:
        self._started: deque[T] = deque()

    def __len__(self) -> int:
        return len(self._started)

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
