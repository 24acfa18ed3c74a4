"""Where a call will run."""

from typing import Any

import jax


def current() -> tuple[str, str]:
    """Platform and model, such as ("gpu", "NVIDIA H200"): of the mesh in use, which may be there for compiling only, or
    else of the default device."""
    config: Any = jax.config
    device = jax.sharding.get_abstract_mesh().abstract_device or config.jax_default_device
    if device is None or isinstance(device, str):
        device = jax.devices(device)[0]
    return device.platform, device.device_kind
