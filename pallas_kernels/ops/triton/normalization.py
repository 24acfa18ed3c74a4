"""The kernels of the normalisation: before those of the operator its statistics, after the backward ones its cotangent.

A thread owns one filter. The kernels of the operator normalise the filters that they load by the statistics, which are
two numbers a filter; to compute them there, in each program that reads the filter, takes longer. An array with more
elements than 32 bits count is left to XLA.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from pallas_kernels import compat
from pallas_kernels.ops import normalization
from pallas_kernels.ops.config import COUNT_LIMIT
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton.tiles import Memory, Offset, shifted

NUM_WARPS = 4
BLOCK = 32 * NUM_WARPS  # filters of a program
UNROLLED_TAPS = 32  # more are read again for each sum

Values = Callable[[Offset], Array]
"""[P, 1] of the filters of a program, by the tap."""


# Traced once, so that the forward and the backward pass of a program compute it once.
@functools.partial(jax.jit, static_argnames=("spec", "interpret"), inline=True)
def statistics(filters: Array, spec: FilterSpec, *, interpret: bool) -> Array:
    """Both of `normalization.statistics`, float32 [B·Ho·Wo, S²·G·2], of the filters [B, Ho, Wo, S², G, T]."""
    pixels = math.prod(filters.shape[:3])
    if filters.size > COUNT_LIMIT:
        return jnp.stack(normalization.statistics(filters.astype(jnp.float32), spec), axis=-1).reshape(pixels, -1)
    count = filters.size // spec.taps
    found = _launch(
        _statistics_kernel, (filters,), (2 * count,), jnp.float32, spec=spec, count=count, interpret=interpret
    )
    return found.reshape(pixels, -1)


def pull_back(
    filters: Array, parts: Array, result: jax.ShapeDtypeStruct, spec: FilterSpec, *, interpret: bool
) -> Array:
    """As `normalization.pull_back`, of a sum.

    Args:
      filters: as given, [B, Ho, Wo, S², G, T].
      parts: float32 [B·Ho·Wo, N, S²·G·T], whose sum over N is the cotangent of the normalised filters.
      result: shape and dtype of the result, those of the filters.
      spec: the options of the operator.
      interpret: runs Pallas's interpreter.
    """
    if parts.size > COUNT_LIMIT:
        cotangent = parts.sum(1).reshape(filters.shape)
        return normalization.pull_back(filters.astype(jnp.float32), cotangent, spec).astype(result.dtype)
    count = filters.size // spec.taps
    body = functools.partial(_pull_back_kernel, parts=parts.shape[1], values=parts.shape[2])
    found = _launch(body, (filters, parts), (filters.size,), result.dtype, spec=spec, count=count, interpret=interpret)
    return found.reshape(result.shape)


def _launch(
    body: Callable,
    arrays: tuple[Array, ...],
    shape: tuple[int],
    dtype: jnp.dtype,
    *,
    spec: FilterSpec,
    count: int,
    interpret: bool,
) -> Array:
    def kernel(*refs):
        number = pl.program_id(0).astype(jnp.uint32) * BLOCK + lax.broadcasted_iota(jnp.uint32, (BLOCK, 1), 0)
        body(*refs, number=number, live=number < count, spec=spec, memory=Memory(interpret))

    return pl.pallas_call(
        kernel,
        out_shape=compat.kernel_output(jax.ShapeDtypeStruct(shape, dtype), arrays[0]),
        grid=(math.ceil(count / BLOCK),),
        compiler_params=plgpu.CompilerParams(num_warps=NUM_WARPS, num_stages=1),
        interpret=interpret,
        name="dynamic_filter" + getattr(body, "func", body).__name__.removesuffix("_kernel"),
    )(*(array.reshape(-1) for array in arrays))


def _statistics_kernel(filters_ref, result_ref, *, number: Array, live: Array, spec: FilterSpec, memory: Memory):
    for which, value in enumerate(_statistics(_taps(filters_ref, number, live, spec, memory), spec)):
        memory.store(result_ref, (shifted(2 * number, which),), value, live)


def _pull_back_kernel(
    filters_ref,
    parts_ref,
    result_ref,
    *,
    number: Array,
    live: Array,
    spec: FilterSpec,
    memory: Memory,
    parts: int,
    values: int,
):
    of_pixel = values // spec.taps
    first = number // of_pixel * (parts * values) + number % of_pixel * spec.taps
    given = _taps(filters_ref, number, live, spec, memory)
    shift, factor = _statistics(given, spec)

    def cotangent_at(tap: Offset) -> Array:
        loads = (memory.load(parts_ref, (shifted(first + part * values, tap),), live) for part in range(parts))
        return functools.reduce(lax.add, loads)

    cotangent = _read_once(cotangent_at, spec)
    if spec.normalize == "softmax":
        used = _read_once(lambda tap: jnp.exp(given(tap) - shift) * factor, spec)
        common = _total(lambda tap: used(tap) * cotangent(tap), spec)

        def result(tap: Offset) -> Array:
            return used(tap) * (cotangent(tap) - common)
    else:
        mean = _total(cotangent, spec) / spec.taps
        deviation = jnp.sqrt(_variance(given, shift, spec))
        # Where all taps are equal the derivative of the deviation is 0.
        curvature = (spec.taps - 1) * jnp.where(deviation == 0, jnp.inf, deviation * (deviation + 1e-10))
        slope = _total(lambda tap: (given(tap) - shift) * cotangent(tap), spec) / curvature

        def result(tap: Offset) -> Array:
            return factor * (cotangent(tap) - mean - (given(tap) - shift) * slope)

    def store(tap: Offset) -> None:
        memory.store(result_ref, (shifted(number * spec.taps, tap),), result(tap), live)

    _for_each_tap(store, spec)


def _taps(filters_ref, number: Array, live: Array, spec: FilterSpec, memory: Memory) -> Values:
    return _read_once(lambda tap: memory.load(filters_ref, (shifted(number * spec.taps, tap),), live), spec)


def _statistics(given: Values, spec: FilterSpec) -> tuple[Array, Array]:
    if spec.normalize == "softmax":
        largest = _total(given, spec, jnp.maximum)
        return largest, 1 / _total(lambda tap: jnp.exp(given(tap) - largest), spec)
    mean = _total(given, spec) / spec.taps
    return mean, spec.filter_norm_factor(jnp.sqrt(_variance(given, mean, spec)))


def _variance(given: Values, mean: Array, spec: FilterSpec) -> Array:
    return _total(lambda tap: (given(tap) - mean) * (given(tap) - mean), spec) / (spec.taps - 1)


def _total(values: Values, spec: FilterSpec, function: Callable = lax.add) -> Array:
    """Of all taps, in their order."""
    if spec.taps <= UNROLLED_TAPS:
        return functools.reduce(function, map(values, range(spec.taps)))
    return lax.fori_loop(1, spec.taps, lambda tap, total: function(total, values(tap)), values(0))


def _for_each_tap(body: Callable[[Offset], None], spec: FilterSpec) -> None:
    if spec.taps <= UNROLLED_TAPS:
        for tap in range(spec.taps):
            body(tap)
    else:
        lax.fori_loop(0, spec.taps, lambda tap, _: body(tap), None)


def _read_once(values: Values, spec: FilterSpec) -> Values:
    """Of unrolled taps, whose numbers are Python's."""
    once: Any = functools.cache(values)
    return once if spec.taps <= UNROLLED_TAPS else values
