"""Processes, devices and how arrays lie on them: parameters on every device, batches split over all of them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ddf_jax.training.errors import RunError

BATCH_AXIS = "data"

Devices = Sequence[Any]
"""Some of `jax.devices()`."""


def initialize_processes() -> None:
    """Joins this process to the others of a multi-process run; alone, it does nothing.

    Called once, before any other use of JAX. The environment says what to join: `JAX_COORDINATOR_ADDRESS` (host:port of
    process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` on any machine, or a launcher that JAX knows (Slurm's `srun`,
    Open MPI's `mpirun`) with more than one process.
    """
    environment = os.environ
    if jax.distributed.is_initialized():
        return
    if {"JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"} <= environment.keys():
        jax.distributed.initialize(
            environment["JAX_COORDINATOR_ADDRESS"],
            num_processes=int(environment["JAX_NUM_PROCESSES"]),
            process_id=int(environment["JAX_PROCESS_ID"]),
        )
    elif any(int(environment.get(name, "1")) > 1 for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")):
        jax.distributed.initialize()


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
