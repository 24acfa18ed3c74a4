"""What the GPU suite compares in JAX: implementations by name, and baselines. `torch_peers` has those in PyTorch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.ops import reference
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.spec import FilterSpec

MOSAIC = "mosaic_gpu"

Function = Callable[..., Any]
"""(x, spatial, channel) to y."""


def unfold(spec: FilterSpec, x: jax.Array, spatial: jax.Array, channel: jax.Array) -> jax.Array:
    """The operator as im2col and a product, for one group and "mul": T times the memory of x."""
    views = jnp.stack([view for _, view in reference.taps(x, spec)], axis=-1)  # [B, Ho, Wo, C, T]
    filters = spatial[:, :, :, 0].astype(jnp.float32) * channel[:, 0].astype(jnp.float32).swapaxes(1, 2)[:, None, None]
    return jnp.sum(views.astype(jnp.float32) * filters, axis=-1).astype(x.dtype)


def depthwise(spec: FilterSpec, x: jax.Array) -> jax.Array:
    """A depthwise convolution of the same size: another result, but the static layer that a network would use."""
    channels = x.shape[-1]
    kernel = jnp.full((*spec.kernel_size, 1, channels), 1 / spec.taps, x.dtype)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        spec.stride,
        spec.padding,
        rhs_dilation=spec.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


def with_cotangents(function: Function) -> Function:
    """(dy, *inputs) to y and the cotangents of the inputs."""

    def run(dy: jax.Array, *inputs: jax.Array | None) -> tuple[Any, ...]:
        y, pull_back = jax.vjp(function, *inputs)
        return y, *pull_back(dy)

    return run


def named_call(arg: ArgSpec, name: str) -> Function:
    """The call by an implementation: Mosaic's kernels, with Triton's where it has none."""
    return functools.partial(arg.call, implementation=(name, "triton") if name == MOSAIC else name)


def computes(name: str, arg: ArgSpec, dtype: str) -> bool:
    """Whether an implementation computes the values of a call, not another in its place."""
    if name != MOSAIC:
        return True
    from pallas_kernels.ops.mosaic_gpu import selection  # a back end that may be missing

    shape = ArgShape.of(*arg.structs(dtype), arg.spec)
    return selection.why_not(shape, [shape.itemsize]) is None
