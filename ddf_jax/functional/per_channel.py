"""Functions of all pixels of a channel, and their derivatives: sums, two at a time, and a rectified affine function.

On a GPU they are written for few kernels and passes over memory; on a CPU the plain formulas are a little faster.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_jvp
def channel_sums(a: Array, b: Array) -> tuple[Array, Array]:
    """The sums of two arrays [B, …, C] over all axes but the last: [C] each.

    First within each sample, which XLA does for both arrays in one kernel, then over the batch, which it only does so
    where both are one array.
    """

    def staged(a: Array, b: Array) -> tuple[Array, Array]:
        inner = tuple(range(1, a.ndim - 1))
        both = jnp.stack([a.sum(inner), b.sum(inner)]).sum(1)
        return both[0], both[1]

    return lax.platform_dependent(a, b, cpu=_sums, default=staged)


@channel_sums.defjvp
def _derivative_of_sums(primals: tuple[Array, Array], tangents: tuple[Array, Array]):
    return channel_sums(*primals), _sums(*tangents)


def _sums(a: Array, b: Array) -> tuple[Array, Array]:
    axes = tuple(range(a.ndim - 1))
    return a.sum(axes), b.sum(axes)


@jax.custom_jvp
def channel_spread(a: Array, b: Array, x: Array) -> tuple[Array, Array]:
    """Two arrays [C] as [B, 1, …, C], to be broadcast against x [B, …, C].

    Their cotangents are summed as by `channel_sums`.
    """
    return _per_sample(a, x), _per_sample(b, x)


@channel_spread.defjvp
def _derivative_of_spread(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]):
    a, b, _ = tangents  # x gives the shape only

    def staged(a: Array, b: Array) -> tuple[Array, Array]:
        both = _per_sample(jnp.stack([a, b]), primals[2])
        return both[0], both[1]

    def plain(a: Array, b: Array) -> tuple[Array, Array]:
        return _per_sample(a, primals[2]), _per_sample(b, primals[2])

    return channel_spread(*primals), lax.platform_dependent(a, b, cpu=plain, default=staged)


def _per_sample(values: Array, x: Array) -> Array:
    """[…, C] to […, B, 1, …, C], sharded over B as x is."""
    *leading, channels = values.shape
    pixel = jnp.zeros_like(x[(slice(None), *(slice(1),) * (x.ndim - 2))])
    return values.reshape(*leading, *(1,) * (x.ndim - 1), channels) + jnp.expand_dims(pixel, range(len(leading)))


@jax.custom_jvp
def rectified_affine(x: Array, factor: Array, shift: Array) -> Array:
    """max(x · factor + shift, 0).

    On a GPU each term of the derivative is masked by itself: then XLA fuses the mask into all of its uses, and a masked
    cotangent is never in memory.
    """
    return jnp.maximum(x * factor + shift, 0)


@rectified_affine.defjvp
def _derivative_of_rectified(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]):
    x, factor, shift = primals
    positive = x * factor + shift > 0

    def apart(dx: Array, dfactor: Array, dshift: Array) -> Array:
        dy = jnp.where(positive, factor, 0) * dx + jnp.where(positive, x, 0) * dfactor
        return dy + jnp.where(positive, jnp.ones_like(x), 0) * dshift

    def together(dx: Array, dfactor: Array, dshift: Array) -> Array:
        return jnp.where(positive, factor * dx + x * dfactor + dshift, 0)

    return rectified_affine(*primals), lax.platform_dependent(*tangents, cpu=together, default=apart)
