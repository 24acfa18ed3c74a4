"""The lowering of what a device computes by an implementation, which is chosen here."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import mlir

from pallas_kernels import compat
from pallas_kernels.ops.choice import Preference, choose
from pallas_kernels.ops.device import DEFAULT_GPU, DeviceInfo, device_of_platform, use_device
from pallas_kernels.ops.form import Form
from pallas_kernels.ops.implementation import Implementation


def device_of(context: Any) -> DeviceInfo:
    """The device that an equation is lowered for."""
    platform, *_ = context.platforms or context.module_context.platforms
    return device_of_platform(platform)


def lower_on_device(
    context: Any,
    values: Sequence[Any],
    preference: Preference,
    function_of: Callable[[Implementation], Callable],
    form: Form | None = None,
) -> Any:
    """Lowers a function of the implementation that is chosen for a form, on the arrays of one device."""
    device = device_of(context)
    function = function_of(choose(preference, device, context.avals_in, form))
    # On one device no axis of a mesh is left.
    context = context.replace(avals_in=[compat.plain_type(aval) for aval in context.avals_in])
    absent = use_device(device) if device is DEFAULT_GPU else contextlib.nullcontext()
    with absent, x64_as(context.avals_in), compat.without_triton_deprecation():
        return mlir.lower_fun(function)(context, *values)


@contextlib.contextmanager
def x64_as(arrays: Sequence[Any]) -> Iterator[None]:
    """Enables 64-bit dtypes where an array has one: a thread of XLA's does not see the context `jax.enable_x64`."""
    with jax.enable_x64(True) if any(array.dtype == jnp.float64 for array in arrays) else contextlib.nullcontext():
        yield
