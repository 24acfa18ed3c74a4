"""Where a call will run."""

from typing import Any, NamedTuple

import jax
from jax import Array
from jax.core import Tracer


class Where(NamedTuple):
    """A device model."""

    platform: str  # "gpu"
    kind: str  # "NVIDIA H200"
    capability: str | None = None  # "9.0" on NVIDIA GPUs; not known of one that is there for compiling only

    @property
    def runs_triton(self) -> bool:
        """Whether it is an NVIDIA GPU from Ampere on."""
        if self.platform != "gpu":
            return False
        if self.capability is None:
            return self.kind.startswith("NVIDIA")
        major = self.capability.partition(".")[0]
        return major.isdecimal() and int(major) >= 8  # AMD's are "gfx942"


def current(*arrays: Array | None) -> Where:
    """The model of the device that these arrays were put on, of the mesh in use, which may be there for compiling only,
    or of the default device.

    Under `jax.jit` and `jax.grad` nobody knows yet where arrays lie: there `jax.default_device` says it.
    """
    config: Any = jax.config
    put_on = [next(iter(array.devices())) for array in arrays if array is not None and _is_put_somewhere(array)]
    mesh = jax.sharding.get_abstract_mesh()
    device: Any = put_on[0] if put_on else mesh.abstract_device or config.jax_default_device
    if device is None or isinstance(device, str):
        device = jax.devices(device)[0]
    return Where(device.platform, device.device_kind, getattr(device, "compute_capability", None))


def _is_put_somewhere(array: Any) -> bool:
    return isinstance(array, jax.Array) and not isinstance(array, Tracer) and array.committed
