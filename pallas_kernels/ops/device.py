"""The device that a program is lowered for."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

GPU_PLATFORMS = ("cuda", "rocm", "gpu")
HOPPER_OR_NEWER = tuple(f"NVIDIA {kind}" for kind in ("H100", "H200", "GH200", "B100", "B200", "B300", "GB200"))


class DeviceInfo(NamedTuple):
    """A device model.

    Args:
      platform: such as "gpu".
      kind: such as "NVIDIA H200".
      capability: such as "9.0", on NVIDIA GPUs; None for a compile-only device.
    """

    platform: str
    kind: str
    capability: str | None = None

    @property
    def runs_triton(self) -> bool:
        """Whether it is an NVIDIA GPU, Ampere or newer."""
        return self._is_nvidia(8, "NVIDIA")

    @property
    def runs_mosaic(self) -> bool:
        """Whether it is an NVIDIA GPU of a data centre, Hopper or newer: others have less shared memory."""
        if self.capability is not None and self.capability.partition(".")[0] not in ("9", "10"):
            return False
        return self._is_nvidia(9, *HOPPER_OR_NEWER)

    def _is_nvidia(self, major: int, *kinds: str) -> bool:
        if self.platform != "gpu":
            return False
        if self.capability is None:
            return self.kind.startswith(kinds)
        found = self.capability.partition(".")[0]
        return found.isdecimal() and int(found) >= major  # AMD's are "gfx942"


DEFAULT_GPU = DeviceInfo("gpu", "NVIDIA H200")


def device_of_platform(platform: str) -> DeviceInfo:
    """The device of the mesh in use (compile-only or real), or else the first of this machine, if it has one.

    For CUDA on a machine without a GPU it is `DEFAULT_GPU`.

    Args:
      platform: a name of `jax.export`'s platforms, such as "cpu", "cuda" or "rocm".
    """
    name = "gpu" if platform in GPU_PLATFORMS else platform
    meshed: Any = jax.sharding.get_abstract_mesh().abstract_device
    if meshed is not None and meshed.platform == name:
        return _info(meshed)
    if jax.default_backend() == name:
        return _info(jax.local_devices()[0])
    return DEFAULT_GPU if platform == "cuda" else DeviceInfo(name, platform)


def device_of_array(array: jax.typing.ArrayLike) -> DeviceInfo:
    """The device, or one of those, that holds an array: the default one for an array of NumPy."""
    return _info(next(iter(jnp.asarray(array).devices())))


def use_device(device: DeviceInfo) -> Any:
    """A context in which programs are lowered for a device of this model, which this machine need not have."""
    abstract = jax.sharding.AbstractDevice(device_kind=device.kind, num_cores=None, platform=device.platform)
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=abstract))


def current_device() -> DeviceInfo:
    """The device of the mesh in use, or the default device."""
    config: Any = jax.config
    device: Any = jax.sharding.get_abstract_mesh().abstract_device or config.jax_default_device
    if device is None or isinstance(device, str):
        device = jax.devices(device)[0]
    return _info(device)


def _info(device: Any) -> DeviceInfo:
    return DeviceInfo(device.platform, device.device_kind, getattr(device, "compute_capability", None))
