"""GPU targets: their data sheets, and compile-only devices of their kind."""

import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU model, by NVIDIA's data sheet.

    Args:
      name: JAX's `device_kind`.
      compute_capability: major and minor.
      multiprocessors: streaming multiprocessors.
      clock: Hz, boost.
      bandwidth: bytes per second of the memory, peak. On an H200 (4.8e12) a copy reached 4.3e12.
      matmul_rate: operations per second of dense bfloat16 matrix products, peak.
      memory: bytes.
      shared_memory: bytes per multiprocessor.
      l2_cache: bytes.
    """

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    clock: float
    bandwidth: float
    matmul_rate: float
    memory: int
    shared_memory: int
    l2_cache: int

    @property
    def issue_rate(self) -> float:
        """Instructions of one lane per second: 128 lanes per multiprocessor and clock."""
        return self.multiprocessors * self.clock * 128


DEVICES = {
    "b200": Device("NVIDIA B200", (10, 0), 148, 1.965e9, 8.0e12, 2250e12, 180 * 10**9, 233472, 126 * 2**20),
    "h200": Device("NVIDIA H200", (9, 0), 132, 1.98e9, 4.8e12, 989e12, 141 * 10**9, 233472, 50 * 2**20),
    "h100": Device("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98e9, 3.35e12, 989e12, 80 * 10**9, 233472, 50 * 2**20),
    "a100": Device("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41e9, 2.039e12, 312e12, 80 * 10**9, 167936, 40 * 2**20),
}
"""The GPU targets by name, with the numbers of their data sheets."""


def compile_only_devices(device: Device, count: int) -> Sequence[Any]:
    """Compile-only devices for `jax.make_mesh`. Lower with `jax.ShapeDtypeStruct`s that are sharded over that mesh.

    Call it before anything else in the process uses JAX: the plugin reads the environment when it starts.

    Raises:
      NotImplementedError: JAX's CUDA plugin is not installed.
    """
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        version = jax.__version__
        raise NotImplementedError(
            "Ahead-of-time compilation for a GPU target needs JAX's CUDA plugin: "
            f"pip install jax-cuda13-plugin=={version} jax-cuda13-pjrt=={version}"
        )
    from jax.experimental import topologies

    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # the libraries it checks for are not used
    # Autotuning would time candidates on a GPU; without it XLA's own Triton matrix products may find no tiles.
    flags = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
    os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".strip()
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="compile_only", topology=f"1x1x{count}", target_config=_target_config(device)
    )
    return topology.devices


def use_target(device: Device) -> Any:
    """A context in which calls are traced for one device of this kind."""
    cores = device.multiprocessors
    abstract = jax.sharding.AbstractDevice(device_kind=device.name, num_cores=cores, platform="gpu")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=abstract))


def _target_config(device: Device) -> str:
    """XLA's description of a device, a text proto."""
    major, minor = device.compute_capability
    return f"""
        gpu_device_info {{
          threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 fpus_per_core: 128
          shared_memory_per_block: 49152 shared_memory_per_core: {device.shared_memory}
          shared_memory_per_block_optin: {device.shared_memory - 1024}
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          core_count: {device.multiprocessors} clock_rate_ghz: {device.clock / 1e9}
          memory_bandwidth: {round(device.bandwidth)} device_memory_size: {device.memory}
          l2_cache_size: {device.l2_cache}
          cuda_compute_capability {{ major: {major} minor: {minor} }}
        }}
        platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 13 }}
        device_description_str: "{device.name}"
    """
