"""Other ways to compute the operator in JAX, or what stands in its place, that `gpu_suite` times beside it."""

import jax
import jax.numpy as jnp

from pallas_kernels.ops import reference
from pallas_kernels.ops.spec import FilterSpec


def unfold(spec: FilterSpec, x: jax.Array, spatial: jax.Array, channel: jax.Array) -> jax.Array:
    """The operator as im2col and a product: T times the memory of x."""
    views = jnp.stack([view for _, view in reference.taps(x, spec)], axis=-1)  # [B, Ho, Wo, C, T]
    filters = spatial[:, :, :, 0].astype(jnp.float32) * channel[:, 0].astype(jnp.float32).swapaxes(1, 2)[:, None, None]
    return jnp.sum(views.astype(jnp.float32) * filters, axis=-1).astype(x.dtype)


def depthwise(x: jax.Array, spec: FilterSpec) -> jax.Array:
    """A static depthwise convolution of the same size: not the same result, but what a network would use instead."""
    kernel_size, channels = spec.kernel_size, x.shape[-1]
    kernel = jnp.full((kernel_size, kernel_size, 1, channels), 1 / spec.taps, x.dtype)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (spec.stride, spec.stride),
        [(spec.reach, spec.reach)] * 2,
        rhs_dilation=(spec.dilation,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )
