"""Static upsampling, the baselines of the dynamic upsamplers.

Each takes [B, H, W, C] to [B, S·H, S·W, C], with sub-pixel (i, j) of pixel (h, w) at (S·h + i, S·w + j).
Each computes in `dtype`, by default that of x (float32 for integers, which `Nearest` alone returns as they are).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import check_feature_map, depth_to_space, on_rows
from ddf_jax.layers.convolution import Conv
from ddf_jax.layers.initializers import Initializer, uniform_bias, uniform_fan_in
from ddf_jax.layers.inputs import as_feature_map, promote_dtype
from ddf_jax.layers.options import python_numbers
from pallas_kernels import accumulator_dtype


class Nearest(nnx.Module):
    """Repeats every pixel S×S times.

    >>> import jax.numpy as jnp
    >>> Nearest(1, scale=2)(jnp.arange(2.0).reshape(1, 1, 2, 1))[0, :, :, 0].tolist()
    [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        scale: int = 2,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del param_dtype, rngs  # there are no parameters
        self.in_channels = in_channels
        self.scale = scale
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        check_feature_map(x, self.in_channels)
        x = x if self.dtype is None else x.astype(self.dtype)
        return jnp.repeat(jnp.repeat(x, self.scale, axis=1), self.scale, axis=2)


class Bilinear(nnx.Module):
    """Interpolates between the centres of pixels, the border repeated (torch's `align_corners=False`).

    Weights and sums are in float32 (float64 for float64).

    >>> import jax.numpy as jnp
    >>> Bilinear(1, scale=2)(jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1))[0, 0, :, 0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        scale: int = 2,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ):
        del param_dtype, rngs  # there are no parameters
        self.in_channels = in_channels
        self.scale = scale
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        return on_rows(self._resized, x, padding=(1, 1), span=2, fill=None)

    def _resized(self, x: Array, rows: tuple[int, int]) -> Array:
        batch, height, width, channels = x.shape
        size = (batch, self.scale * height, self.scale * width, channels)
        y = jax.image.resize(x.astype(accumulator_dtype(x)), size, "bilinear").astype(x.dtype)
        return y if rows == (1, 1) else y[:, self.scale : -self.scale]  # the border is repeated, or a halo


class PixelShuffle(nnx.Module):
    """A K×K convolution from C to S²·C channels, [S², C], with the S² parts rearranged as sub-pixels.

    Reference: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
    Convolutional Neural Network", CVPR 2016.
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        scale: int = 2,
        kernel_size: int = 3,
        kernel_init: Initializer = uniform_fan_in,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            in_channels,
            scale**2 * in_channels,
            kernel_size=kernel_size,
            use_bias=True,
            kernel_init=kernel_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.scale = scale

    def __call__(self, x: Array) -> Array:
        check_feature_map(x, self.conv.in_features)
        return depth_to_space(self.conv(x), self.scale)


class Deconvolution(nnx.ConvTranspose):
    r"""Transposed convolution with a stride of S, K = 2S − 1 by default.

    .. math:: y_{p} = b + \sum_t [S \mid p + t] \; W_t \; x_{(p+t)/S}, \qquad
                     t \in \{-\lfloor K/2 \rfloor, …, \lfloor K/2 \rfloor\}^2

    It is torch's with a padding of ⌊K/2⌋, an output padding of S − 1 and its kernel rotated by 180°.

    Raises:
        UserError: K is even or smaller than 2S − 1, where some outputs would see no input.

    Reference: Noh et al., "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015.
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        scale: int = 2,
        kernel_size: int | None = None,
        kernel_init: Initializer = uniform_fan_in,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kernel_size = 2 * scale - 1 if kernel_size is None else kernel_size
        if kernel_size % 2 == 0 or kernel_size < 2 * scale - 1:
            raise UserError(f"`kernel_size` must be odd and at least 2·scale - 1, got {kernel_size} for {scale=}.")
        border = (kernel_size // 2, kernel_size // 2 + scale - 1)
        super().__init__(
            in_channels,
            in_channels,
            (kernel_size, kernel_size),
            scale,
            padding=(border, border),
            kernel_init=kernel_init,
            bias_init=uniform_bias(in_channels * kernel_size**2),
            dtype=dtype,
            param_dtype=param_dtype,
            promote_dtype=promote_dtype,
            rngs=rngs,
        )

    def __call__(self, inputs: Array) -> Array:
        check_feature_map(inputs, self.in_features)
        return super().__call__(inputs)
