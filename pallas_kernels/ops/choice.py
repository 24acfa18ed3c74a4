"""The choice of an implementation, when a program is lowered for a platform."""

import functools
import importlib
import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import export

from pallas_kernels import compat
from pallas_kernels.ops.device import DeviceInfo
from pallas_kernels.ops.form import Form
from pallas_kernels.ops.implementation import Implementation

IMPLEMENTATIONS = {
    "mosaic_gpu": "pallas_kernels.ops.mosaic_gpu",
    "triton": "pallas_kernels.ops.triton",
    "xla": "pallas_kernels.ops.xla",
    "reference": "pallas_kernels.ops.reference",
}
"""The implementations by name: modules, imported on first use. A new one is a module and a line here."""

GPU_KERNELS = ("triton",)
"""Implementations for NVIDIA GPUs, best first, that are tried where none is named. One that has not been measured on a
GPU is not among them."""

DISABLED_EXPORT_CHECKS = tuple(
    export.DisabledSafetyCheck.custom_call(target) for target in ("__gpu$xla.gpu.triton", "mosaic_gpu_v2")
)
"""`disabled_checks` of `jax.export.export`, for programs with kernels: JAX guarantees their custom calls only for the
version that exported them. Run such a program with that version."""

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


def choose(
    preference: Preference, device: DeviceInfo, types: Sequence[Any], form: Form | None = None
) -> Implementation:
    """The first implementation that can compute a form of arrays of these types on a device; no form is attention.

    Raises:
      NotImplementedError: none can; the message lists the reasons.
    """
    reasons = []
    for name in preference or (*GPU_KERNELS, "xla"):
        reason = _why_not(name, device, types, form) if isinstance(name, str) else None
        if reason is None:
            if preference is None and reasons and device.platform == "gpu":
                _log_once(f"dynamic_filter runs as XLA on the GPU: {' '.join(reasons)}")
            return _module(name) if isinstance(name, str) else name
        reasons.append(reason)
    raise NotImplementedError(f"{' '.join(reasons)} Add 'xla', which runs everywhere.")


def _why_not(name: str, device: DeviceInfo, types: Sequence[Any], form: Form | None) -> str | None:
    """Why the implementation cannot evaluate arrays of these types on this device, or None where it can."""
    if name not in ("mosaic_gpu", "triton"):
        return None
    if importlib.util.find_spec(IMPLEMENTATIONS[name]) is None:
        return f"implementation={name!r} is not part of this installation."
    runs, which = device.runs_triton, "from Ampere on"
    if name == "mosaic_gpu":
        runs, which = device.runs_mosaic, "of compute capability 9 and 10"
    if not runs:
        capability = f" of compute capability {device.capability}" if device.capability else ""
        return f"implementation={name!r} runs on NVIDIA GPUs {which}, here is: {device.kind}{capability}."
    if any(aval.dtype == jnp.float64 for aval in types):
        return f"implementation={name!r} has no float64."
    if not all(isinstance(length, int) for aval in types for length in aval.shape):
        return f"implementation={name!r} has no symbolic sizes."
    if name == "triton":
        return None
    reason = compat.no_mosaic_gpu() or _module(name).why_not(form, types)
    return None if reason is None else f"implementation={name!r} {reason}"


def _module(name: str) -> Any:
    return importlib.import_module(IMPLEMENTATIONS[name])


@functools.cache
def _log_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)
