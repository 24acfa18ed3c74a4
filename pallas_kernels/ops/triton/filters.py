"""The filters of a program: their loads, the normalisation of the spatial one in registers, and their combination."""

from collections.abc import Callable
from functools import cache

import jax.numpy as jnp
from jax import Array

from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton.tiles import Channels, Memory, Patches, Taps, shifted


def filter_loads(
    s_ref, n_ref, c_ref, taps: Taps, *, shape: ArgShape, patches: Patches, channels: Channels, memory: Memory
) -> tuple[Callable, Callable]:
    """Returns s(key, position, inside, sub, i, j) [P, 1] and c(sub, i, j) [P, C'], float32. Each c is loaded once.

    A key stands for a position, whose statistics in `n_ref` are loaded once.
    """
    spec = shape.spec
    found: dict[tuple, tuple[Array, ...]] = {}

    def s(key: tuple, position: Array, inside: Array | None, sub: int, i: int, j: int) -> Array | None:
        if s_ref is None:
            return None
        # The groups lie between the sub-pixels and the taps.
        skipped = (sub * (shape.groups - 1) + channels.group) * spec.taps
        value = memory.load(s_ref, (position, shifted(skipped, taps.number(sub, i, j))), inside)
        if n_ref is None:
            return value
        if (key, sub) not in found:
            first = 2 * (sub * shape.groups + channels.group)
            found[key, sub] = tuple(memory.load(n_ref, (position, shifted(first, which)), inside) for which in range(2))
        shift, factor = found[key, sub]
        value = value - shift
        return (jnp.exp(value) if spec.normalize == "softmax" else value) * factor

    @cache
    def c(sub: int, i: int, j: int) -> Array | None:
        if c_ref is None:
            return None
        row = shifted(patches.sample * (spec.scale**2 * spec.taps), taps.number(sub, i, j))
        return memory.load(c_ref, (row, channels.numbers), channels.live)

    return s, c


def combine(s: Array | None, c: Array | None, spec: FilterSpec) -> Array:
    """The filter of one tap, float32."""
    if s is None:
        assert c is not None  # the operator has at least one filter
        return c
    if c is None:
        return s
    return s * c if spec.combine == "mul" else s + c


def scaled(total: Array, spec: FilterSpec) -> Array:
    """A sum of the form, times its factor."""
    return total if spec.factor == 1 else spec.factor * total
