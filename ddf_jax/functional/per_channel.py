"""Sums over everything but the channels, two at a time, and their transposes."""

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_jvp
def channel_sums(a: Array, b: Array) -> tuple[Array, Array]:
    """The sums of two arrays [B, …, C] over all axes but the last: [C] each.

    First within each sample, which XLA does for both arrays in one kernel, then over the batch, which it only does so
    where both are one array.
    """
    inner = tuple(range(1, a.ndim - 1))
    both = jnp.stack([a.sum(inner), b.sum(inner)]).sum(1)
    return both[0], both[1]


@channel_sums.defjvp
def _derivative_of_sums(primals: tuple[Array, Array], tangents: tuple[Array, Array]):
    axes = tuple(range(primals[0].ndim - 1))
    return channel_sums(*primals), (tangents[0].sum(axes), tangents[1].sum(axes))


@jax.custom_jvp
def channel_spread(a: Array, b: Array, x: Array) -> tuple[Array, Array]:
    """Two arrays [C] as [B, 1, …, C], to be broadcast against x [B, …, C].

    Their cotangents are summed as by `channel_sums`.
    """
    return _per_sample(a, x), _per_sample(b, x)


@channel_spread.defjvp
def _derivative_of_spread(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]):
    *both, _ = tangents  # x gives the shape only
    both = _per_sample(jnp.stack(both), primals[2])
    return channel_spread(*primals), (both[0], both[1])


def _per_sample(values: Array, x: Array) -> Array:
    """[…, C] to […, B, 1, …, C], sharded over B as x is."""
    *leading, channels = values.shape
    pixel = jnp.zeros_like(x[(slice(None), *(slice(1),) * (x.ndim - 2))])
    return values.reshape(*leading, *(1,) * (x.ndim - 1), channels) + jnp.expand_dims(pixel, range(len(leading)))
