"""The cotangent of a raw spatial filter, from that of the normalised one: one kernel after those of `bwd.py`."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from pallas_kernels import compat
from pallas_kernels.ops import normalization
from pallas_kernels.ops.config import COUNT_LIMIT
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton.tiles import Memory

BLOCK_ELEMENTS = 2048
MAX_TAPS = 256


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
    if parts.size > COUNT_LIMIT or spec.taps > MAX_TAPS:
        cotangent = parts.sum(1).reshape(filters.shape)
        return normalization.pull_back(filters.astype(jnp.float32), cotangent, spec).astype(result.dtype)
    rows = filters.size // spec.taps
    width = pl.next_power_of_2(spec.taps)
    block = max(1, min(BLOCK_ELEMENTS // width, pl.next_power_of_2(rows)))
    kernel = functools.partial(
        _kernel, spec=spec, shape=parts.shape, block=block, width=width, memory=Memory(interpret)
    )
    return pl.pallas_call(
        kernel,
        out_shape=compat.kernel_output(jax.ShapeDtypeStruct((filters.size,), result.dtype), parts),
        grid=(math.ceil(rows / block),),
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="dynamic_filter_pull_back",
    )(filters.reshape(-1), parts.reshape(-1)).reshape(result.shape)


def _kernel(
    filters_ref,
    parts_ref,
    result_ref,
    *,
    spec: FilterSpec,
    shape: tuple[int, ...],
    block: int,
    width: int,
    memory: Memory,
):
    """Each row of a tile [block, width] holds the taps of a filter."""
    pixels, parts, values = shape
    of_pixel = values // spec.taps
    row = pl.program_id(0) * block + lax.broadcasted_iota(jnp.int32, (block, width), 0)
    tap = lax.broadcasted_iota(jnp.int32, (block, width), 1)
    live = (row < pixels * of_pixel) & (tap < spec.taps)
    index = row * spec.taps + tap
    given = memory.load(filters_ref, (index,), live)
    first = row // of_pixel * (parts * values) + row % of_pixel * spec.taps + tap
    cotangent = memory.load(parts_ref, (first,), live)
    for part in range(1, parts):
        cotangent += memory.load(parts_ref, (first + part * values,), live)

    def total(values: Array) -> Array:
        return values.sum(1, keepdims=True)

    if spec.normalize == "softmax":
        exponential = jnp.where(live, jnp.exp(given - jnp.where(live, given, -jnp.inf).max(1, keepdims=True)), 0)
        used = exponential / total(exponential)
        result = used * (cotangent - total(used * cotangent))
    else:
        centred = jnp.where(live, given - total(given) / spec.taps, 0)
        deviation = jnp.sqrt(total(centred * centred) / (spec.taps - 1))
        factor = spec.filter_norm_factor(deviation)
        # Where all taps are equal the derivative of the deviation is 0.
        curvature = (spec.taps - 1) * jnp.where(deviation == 0, jnp.inf, deviation * (deviation + 1e-10))
        result = factor * (
            cotangent - total(cotangent) / spec.taps - centred * (total(centred * cotangent) / curvature)
        )
    memory.store(result_ref, (index,), result, live)
