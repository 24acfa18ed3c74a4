"""Multi-spectral channel attention of Qin et al., ICCV 2021."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.layers.convolution import Linear
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import accumulator_dtype

# The 16 best frequencies of the paper, (vertical, horizontal), for maps of 7×7 pixels.
FREQUENCIES = (
    (0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0), (5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3),
    (3, 5), (2, 2),
)  # fmt: skip

MAP_SIZES = (56, 28, 14, 7)
"""Of the stages of a network for images of 224 pixels, for whose maps the paper makes its cosines."""


class FCA(nnx.Module):
    r"""Weights the channels by one frequency of each: [B, H, W, C] to the same shape.

    .. math:: y = x \cdot \text{sigmoid}(W_2 \, \text{relu}(W_1 z)), \qquad
        z_c = \sum_{h,w} D^{u(c)}_h D^{v(c)}_w x_{h,w,c}, \qquad
        D^u_h = \sqrt{\tfrac{2 - [u = 0]}{M}} \cos\frac{\pi u (h + 1/2)}{M}

    for maps of M×M pixels; others are averaged to that size first, as torch's adaptive pooling does. Consecutive groups
    of channels have one of the paper's best frequencies (u, v) each. The frequency (0, 0) is M times the average of
    `SqueezeExcitation`, so weights of one are none of the other.

    Args:
        channels: C.
        size: M, at least 7.
        frequencies: number of the best frequencies, 16 at most.
        reduction: ratio of C to the hidden units.
        dtype: compute dtype (default: that of x; float32 for integers). Sums are kept in float32, or float64.
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: there are not so many frequencies or they do not divide C, the size is less than 7, or the reduction
            leaves no unit.

    Reference: Qin et al., "FcaNet: Frequency Channel Attention Networks", ICCV 2021.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: FCA(32, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 32))).shape
    (2, 5, 4, 32)
    """

    @python_numbers
    def __init__(
        self,
        channels: int,
        *,
        size: int = 7,
        frequencies: int = len(FREQUENCIES),
        reduction: int = 16,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if frequencies > len(FREQUENCIES) or channels % frequencies:
            raise UserError(
                f"`frequencies` must divide {channels=} and be at most {len(FREQUENCIES)}, got {frequencies}."
            )
        if size < 7:
            raise UserError(f"`size` must be at least 7, for the frequencies 0 to 6, got {size}.")
        if channels < reduction:
            raise UserError(f"`reduction` must leave at least one unit of {channels=}, got {reduction}.")
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.hidden = Linear(channels, channels // reduction, use_bias=False, **dtypes)
        self.gate = Linear(channels // reduction, channels, use_bias=False, **dtypes)
        self.channels = channels
        self.size = size
        self.frequencies = FREQUENCIES[:frequencies]
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.channels, self.dtype)
        z = self._frequencies(x)
        return x * jax.nn.sigmoid(self.gate(jax.nn.relu(self.hidden(z))))[:, None, None]

    def _frequencies(self, x: Array) -> Array:
        """One value of each channel: [B, H, W, C] to [B, C]."""
        wide = x.astype(accumulator_dtype(x))
        vertical, horizontal = zip(*self.frequencies, strict=True)
        rows = self._basis(vertical, x.shape[1], wide.dtype)
        columns = self._basis(horizontal, x.shape[2], wide.dtype)
        return ((wide * rows[None, :, None]).sum(1) * columns[None]).sum(1).astype(x.dtype)

    def _basis(self, frequencies: tuple[int, ...], length: int, dtype: jnp.dtype) -> Array:
        """The factor of each pixel along one axis of a map of any length: [length, C]."""
        numpy: Any = np if isinstance(length, int) else jnp  # a symbolic length has no numbers yet
        table = numpy.asarray(cosines(frequencies, self.size), dtype)
        pooled = _adaptive_average(numpy, length, self.size, dtype).T @ table
        return jnp.asarray(pooled).repeat(self.channels // len(frequencies), axis=1)


def cosines(frequencies: tuple[int, ...], size: int) -> np.ndarray:
    """D of the formula, for frequencies of maps of 7 pixels that grow with the size: [size, frequencies]."""
    u = np.array(frequencies) * (size // 7)
    waves = np.cos(np.pi * u * (np.arange(size)[:, None] + 0.5) / size)
    return waves * np.where(u == 0, 1, np.sqrt(2)) / np.sqrt(size)


def _adaptive_average(numpy: Any, length: int, size: int, dtype: jnp.dtype) -> Any:
    """Of each of `size` windows that cover `length` pixels, the weights of its pixels: [size, length]."""
    window, pixel = numpy.arange(size)[:, None], numpy.arange(length)[None]
    first, end = window * length // size, -(-(window + 1) * length // size)
    inside = ((first <= pixel) & (pixel < end)).astype(dtype)
    return inside / inside.sum(1, keepdims=True)
