"""The choice of an implementation, when a program is lowered for a platform."""

import functools
import importlib
import logging
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import export

from pallas_kernels.ops.device import DeviceInfo
from pallas_kernels.ops.implementation import Implementation

# Name to module, imported on first use. A new implementation is a module and a line here.
IMPLEMENTATIONS = {
    "triton": "pallas_kernels.ops.triton",
    "xla": "pallas_kernels.ops.xla",
    "reference": "pallas_kernels.ops.reference",
}

GPU_KERNELS = ("triton",)  # implementations for NVIDIA GPUs, best first

DISABLED_EXPORT_CHECKS = (export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton"),)
"""`disabled_checks` of `jax.export.export`, for programs with kernels: JAX guarantees Triton's custom call only for the
version that exported it. Run such a program with that version."""

Preference = tuple[str | Implementation, ...] | None
"""Implementations, best first: names or modules. None is the best that runs, and logs where a GPU gets no kernel."""


def preference(implementation: str | Sequence[str] | None) -> Preference:
    """The argument `implementation` of the public functions.

    Raises:
      ValueError: there is no implementation of such a name.
    """
    if implementation is None:
        return None
    one = isinstance(implementation, str) or not isinstance(implementation, Sequence)
    names: tuple[Any, ...] = (implementation,) if one else tuple(implementation)
    if not names or any(name not in list(IMPLEMENTATIONS) for name in names):
        raise ValueError(
            f"`implementation` must be None or one or several of {sorted(IMPLEMENTATIONS)}, got {implementation!r}."
        )
    return names


def choose(preference: Preference, device: DeviceInfo, types: Sequence[Any]) -> Implementation:
    """The first implementation that can compute with arrays of these types on a device.

    Raises:
      NotImplementedError: none can; the message lists the reasons.
    """
    reasons = []
    for name in preference or (*GPU_KERNELS, "xla"):
        reason = _why_not(name, device, types) if isinstance(name, str) else None
        if reason is None:
            if preference is None and reasons and device.platform == "gpu":
                _log_once(f"dynamic_filter runs as XLA on this GPU: {' '.join(reasons)}")
            implementation: Any = importlib.import_module(IMPLEMENTATIONS[name]) if isinstance(name, str) else name
            return implementation  # a module follows the protocol
        reasons.append(reason)
    raise NotImplementedError(f"{' '.join(reasons)} Add 'xla', which runs everywhere.")


def _why_not(name: str, device: DeviceInfo, types: Sequence[Any]) -> str | None:
    """Why the implementation cannot evaluate arrays of these types on this device, or None where it can."""
    if name not in GPU_KERNELS:
        return None
    if not device.runs_triton:
        capability = f" of compute capability {device.capability}" if device.capability else ""
        return f"implementation={name!r} runs on NVIDIA GPUs from Ampere on, here is: {device.kind}{capability}."
    if any(aval.dtype == jnp.float64 for aval in types):
        return f"implementation={name!r} has no float64."
    if not all(isinstance(length, int) for aval in types for length in aval.shape):
        return f"implementation={name!r} has no symbolic sizes."
    return None


@functools.cache
def _log_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)
