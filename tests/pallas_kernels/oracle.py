"""The formula of the operator in float64 loops over pixels and taps: no JAX, no automatic differentiation.

Samples and channels go through numpy together, since nothing couples them but the groups.
"""

from typing import Any, NamedTuple

import numpy as np

from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec


class Expected(NamedTuple):
    """y and the cotangents of the inputs, float64; None for an input of None."""

    y: np.ndarray
    x: np.ndarray
    spatial: Any
    channel: Any


def evaluate(arg: ArgSpec, x: Any, spatial: Any, channel: Any, dy: Any) -> Expected:
    """The value at these arrays, and the cotangents that dy gives them."""
    spec, (batch, height, width, channels) = arg.spec, arg.x
    (down, right), (row_step, column_step), (top, left) = spec.stride, spec.dilation, spec.origin
    rows, columns = spec.grid((height, width))
    multiply = spec.combine == "mul"
    x, spatial, channel, dy = (None if a is None else a.astype(np.float64) for a in (x, spatial, channel, dy))
    given, spatial = spatial, spatial if spatial is None else normalized(spatial, spec)
    group_of = np.zeros(channels, int) if spatial is None else np.arange(channels) * spatial.shape[4] // channels

    y = np.zeros((batch, spec.scale * rows, spec.scale * columns, channels))
    dx = np.zeros(x.shape)
    dspatial, dchannel = (None if array is None else np.zeros(array.shape) for array in (spatial, channel))
    for h, w, i, j in np.ndindex(rows, columns, spec.scale, spec.scale):
        at, s = np.s_[:, spec.scale * h + i, spec.scale * w + j], i * spec.scale + j
        for t, (tap_row, tap_column) in enumerate(np.ndindex(spec.kernel_size)):
            row = down * h + row_step * tap_row - top
            column = right * w + column_step * tap_column - left
            if not (0 <= row < height and 0 <= column < width):
                continue
            a = None if spatial is None else spatial[:, h, w, s, group_of, t]  # [B, C]
            b = None if channel is None else channel[:, s, t]  # [B, C]
            if a is None or b is None:
                weight = b if a is None else a
            else:
                weight = a * b if multiply else a + b
            y[at] += weight * x[:, row, column]
            dx[:, row, column] += weight * dy[at]
            dweight = x[:, row, column] * dy[at]
            if dspatial is not None:
                part = dweight * b if b is not None and multiply else dweight
                for c in range(channels):
                    dspatial[:, h, w, s, group_of[c], t] += part[:, c]
            if dchannel is not None:
                dchannel[:, s, t] += dweight * a if a is not None and multiply else dweight
    if dspatial is not None and spec.normalize:
        dspatial = normalization_cotangent(given, dspatial, spec)
    dspatial, dchannel = (None if a is None else spec.factor * a for a in (dspatial, dchannel))
    return Expected(spec.factor * y, spec.factor * dx, dspatial, dchannel)


def normalized(spatial: np.ndarray, spec: FilterSpec) -> np.ndarray:
    """The spatial filter that is used, of the given one [..., T]."""
    if spec.normalize is None:
        return spatial
    if spec.normalize == "softmax":
        powers = np.exp(spatial)
        return powers / powers.sum(-1, keepdims=True)
    centred = spatial - spatial.mean(-1, keepdims=True)
    return spec.gain / spec.taps**0.5 * centred / (spatial.std(-1, ddof=1, keepdims=True) + 1e-10)


def normalization_cotangent(spatial: np.ndarray, cotangent: np.ndarray, spec: FilterSpec) -> np.ndarray:
    """The cotangent of the given filter, of the used one's, by central differences along each tap."""
    found = np.zeros(spatial.shape)
    for tap in range(spec.taps):
        step = np.zeros(spec.taps)
        step[tap] = 1e-6
        change = normalized(spatial + step, spec) - normalized(spatial - step, spec)
        found[..., tap] = (change * cotangent).sum(-1) / 2e-6
    return found
