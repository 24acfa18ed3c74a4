"""The reference: the formula as a sum over the taps, never optimised. Every other implementation must equal it.

Its partial derivatives are automatic derivatives of this loop, which the hand-derived ones must equal.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pallas_kernels.ops.implementation import Operands, Results
from pallas_kernels.ops.normalization import normalized
from pallas_kernels.ops.spec import FilterSpec, accumulator_dtype


def forward(x: Array, spatial: Array | None, channel: Array | None, spec: FilterSpec, dtype: Any = None) -> Array:
    """y as a sum over the taps; shapes as in `implementation.Implementation`."""
    neutral = 1 if spec.combine == "mul" else 0
    wide = accumulator_dtype(x, spatial, channel)
    batch, height, width, channels = x.shape
    rows, columns = spec.grid((height, width))
    if spatial is not None:
        spatial = normalized(spatial.astype(wide), spec)
    y = jnp.zeros((batch, rows, columns, spec.scale**2, channels), wide)
    for tap, view in taps(x.astype(wide), spec):
        s = c = jnp.full((1, 1, 1, 1, 1), neutral, wide)
        if spatial is not None:
            s = jnp.repeat(spatial[..., tap], channels // spatial.shape[-2], axis=-1)
        if channel is not None:
            c = channel[:, None, None, :, tap].astype(wide)
        y += view[:, :, :, None] * (s * c if spec.combine == "mul" else s + c)
    y = (spec.factor * y).reshape(batch, rows, columns, spec.scale, spec.scale, channels).swapaxes(2, 3)
    return y.reshape(batch, spec.scale * rows, spec.scale * columns, channels).astype(dtype or x.dtype)


def backward(operands: Operands, results: Results, spec: FilterSpec) -> dict[str, Array]:
    """The partial derivatives by automatic differentiation of `forward`."""
    y = operands.y
    assert y is not None
    wide = accumulator_dtype(*operands)
    inputs = {name: getattr(operands, name) for name in ("x", "spatial", "channel")}
    # The form does not depend on the value of the operand that it is derived by, if it is linear in it.
    inputs |= {name: jnp.ones(struct.shape, wide) for name, struct in results.items() if inputs[name] is None}

    def of_results(values: dict[str, Array]) -> Array:
        return forward(**{name: inputs[name] for name in inputs} | values, spec=spec, dtype=wide)

    _, pull_back = jax.vjp(of_results, {name: inputs[name].astype(wide) for name in results})
    [cotangents] = pull_back(y.astype(wide))
    return {name: cotangents[name].astype(struct.dtype) for name, struct in results.items()}


def taps(x: Array, spec: FilterSpec) -> Iterator[tuple[int, Array]]:
    """Yields the T shifted, zero-padded and strided views of x, row-major, each [B, Ho, Wo, C]."""
    padded = jnp.pad(x, ((0, 0), *spec.padding, (0, 0)))
    (down, right), (rows, columns) = spec.stride, spec.view_size((x.shape[1], x.shape[2]))
    for tap in range(spec.taps):
        row, column = spec.tap_offset(tap)
        yield tap, padded[:, row : row + rows : down, column : column + columns : right]
