"""The filters of a program: their loads, the normalisation of the spatial one in registers, and their combination."""

import itertools
from collections.abc import Callable
from functools import cache

import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels.ops.config import ArgShape, BlockConfig
from pallas_kernels.ops.normalization import statistics
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton.tiles import Channels, Memory, Patches, Taps, shifted


def statistics_of(spatial: Array | None, config: BlockConfig, spec: FilterSpec) -> Array | None:
    """[B·Ho·Wo, S²·G·2]: what a kernel that loops over taps needs to normalise them; others compute it in registers."""
    if spatial is None or spec.normalize is None or not config.loops_over_taps(spec):
        return None
    both = jnp.stack(statistics(spatial.astype(jnp.float32), spec), axis=-1)
    return both.reshape(spatial.shape[0] * spatial.shape[1] * spatial.shape[2], -1)


def filter_loads(
    s_ref, n_ref, c_ref, taps: Taps, *, shape: ArgShape, patches: Patches, channels: Channels, memory: Memory
) -> tuple[Callable, Callable]:
    """Returns s(key, position, inside, sub, i, j) [P, 1] and c(sub, i, j) [P, C'], float32. Each c is loaded once.

    A key stands for a position, whose statistics are computed once.
    """
    spec = shape.spec
    found: dict[tuple, tuple[Array, Array]] = {}

    def load(position: Array, inside: Array | None, sub: int, i: int, j: int) -> Array:
        # The groups lie between the sub-pixels and the taps.
        skipped = (sub * (shape.groups - 1) + channels.group) * spec.taps
        return memory.load(s_ref, (position, shifted(skipped, taps.number(sub, i, j))), inside)

    def statistics_at(position: Array, inside: Array | None, sub: int) -> tuple[Array, Array]:
        if n_ref is not None:
            first = 2 * (sub * shape.groups + channels.group)
            shift, factor = (memory.load(n_ref, (position, shifted(first, which)), inside) for which in range(2))
            return shift, factor
        every_tap = itertools.product(range(taps.rows), range(taps.columns))
        values = [load(position, inside, sub, *tap) for tap in every_tap]
        if spec.normalize == "softmax":
            largest = _reduce(jnp.maximum, values)
            return largest, 1 / _reduce(lax.add, [jnp.exp(value - largest) for value in values])
        mean = _reduce(lax.add, values) / spec.taps
        variance = _reduce(lax.add, [(value - mean) * (value - mean) for value in values]) / (spec.taps - 1)
        return mean, spec.filter_norm_factor(jnp.sqrt(variance))

    def s(key: tuple, position: Array, inside: Array | None, sub: int, i: int, j: int) -> Array | None:
        if s_ref is None:
            return None
        value = load(position, inside, sub, i, j)
        if spec.normalize is None:
            return value
        if (key, sub) not in found:
            found[key, sub] = statistics_at(position, inside, sub)
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


def _reduce(function: Callable, values: list[Array]) -> Array:
    total = values[0]
    for value in values[1:]:
        total = function(total, value)
    return total
