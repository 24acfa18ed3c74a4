"""The device that a call will run on."""

from typing import Any, NamedTuple

import jax
from jax import Array
from jax.core import Tracer


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
        if self.platform != "gpu":
            return False
        if self.capability is None:
            return self.kind.startswith("NVIDIA")
        major = self.capability.partition(".")[0]
        return major.isdecimal() and int(major) >= 8  # AMD's are "gfx942"


def current_device(*arrays: Array | None) -> DeviceInfo:
    """The device of the first committed array, or of the mesh in use (compile-only or real), or the default device.

    Under `jax.jit` and `jax.grad` arrays are not committed yet: there `jax.default_device` decides.
    """
    config: Any = jax.config
    committed = [next(iter(array.devices())) for array in arrays if array is not None and _is_committed(array)]
    mesh = jax.sharding.get_abstract_mesh()
    device: Any = committed[0] if committed else mesh.abstract_device or config.jax_default_device
    if device is None or isinstance(device, str):
        device = jax.devices(device)[0]
    return DeviceInfo(device.platform, device.device_kind, getattr(device, "compute_capability", None))


def _is_committed(array: Any) -> bool:
    return isinstance(array, jax.Array) and not isinstance(array, Tracer) and array.committed
