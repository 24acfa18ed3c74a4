"""The formula of the operator in float64 loops over pixels and taps: no JAX, no automatic differentiation.

Samples and channels go through numpy together, since nothing couples them but the groups.
"""

from typing import Any, NamedTuple

import numpy as np

from pallas_kernels.ops.arg_specs import ArgSpec


class Expected(NamedTuple):
    """y and the cotangents of the inputs, float64; None for an input of None."""

    y: np.ndarray
    x: np.ndarray
    spatial: Any
    channel: Any


def evaluate(arg: ArgSpec, x: Any, spatial: Any, channel: Any, dy: Any) -> Expected:
    """The value at these arrays, and the cotangents that dy gives them."""
    spec, (batch, height, width, channels) = arg.spec, arg.x
    rows, columns = -(-height // spec.stride), -(-width // spec.stride)
    multiply = spec.combine == "mul"
    x, spatial, channel, dy = (None if a is None else a.astype(np.float64) for a in (x, spatial, channel, dy))
    group_of = np.zeros(channels, int) if spatial is None else np.arange(channels) * spatial.shape[4] // channels

    y = np.zeros((batch, spec.scale * rows, spec.scale * columns, channels))
    dx = np.zeros(x.shape)
    dspatial, dchannel = (None if array is None else np.zeros(array.shape) for array in (spatial, channel))
    for h, w, i, j in np.ndindex(rows, columns, spec.scale, spec.scale):
        at, s = np.s_[:, spec.scale * h + i, spec.scale * w + j], i * spec.scale + j
        for t in range(spec.kernel_size**2):
            row = spec.stride * h + spec.dilation * (t // spec.kernel_size - spec.kernel_size // 2)
            column = spec.stride * w + spec.dilation * (t % spec.kernel_size - spec.kernel_size // 2)
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
    return Expected(y, dx, dspatial, dchannel)
