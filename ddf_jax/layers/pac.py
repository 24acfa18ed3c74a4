"""The pixel-adaptive convolution of Su et al., CVPR 2019, and its transpose."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import blocks, strided
from ddf_jax.layers.initializers import Initializer, normal_fan_out, uniform_fan_in
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import accumulator_dtype, dynamic_filter, dynamic_upsample


class PAC(nnx.Module):
    r"""A depthwise filter, adapted to a guidance: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].

    .. math:: y_{p,c} = \sum_t \exp\!\big(-\tfrac12 \lVert f_p - f_{p+t} \rVert^2\big) \; w_{t,c} \; x_{p+t,c}

    The Gaussian of the guidance f is the spatial filter of a dynamic filter, and the learned w its channel filter, the
    same for every sample. The paper's convolution also mixes channels, tap by tap, which no fused filter can do; a
    1×1 convolution after this layer mixes them once.

    Args:
        in_channels: C.
        kernel_size: K, odd.
        stride: of the filter.
        dilation: of the filter.
        learned: whether w exists; without it every tap has the weight 1 (the paper's pooling, a joint bilateral filter
            that is not normalised).
        kernel_init: initialiser of the weights.
        implementation: of `pallas_kernels.dynamic_filter`.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Reference: Su et al., "Pixel-Adaptive Convolutional Neural Networks", CVPR 2019, Eq. 3.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x, guidance: PAC(8, stride=2, rngs=nnx.Rngs(0))(x, guidance)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 8)), jnp.ones((2, 5, 4, 3))).shape
    (2, 3, 2, 8)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        learned: bool = True,
        kernel_init: Initializer = normal_fan_out,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.filters = nnx.data(None)
        if learned:
            filters = kernel_init(rngs.params(), (kernel_size, kernel_size, 1, in_channels), param_dtype)
            self.filters = nnx.Param(filters.reshape(kernel_size**2, in_channels))
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation
        self.implementation = implementation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array, guidance: Array | None = None) -> Array:
        """x [B, H, W, C] and a guidance [B, H, W, any number of channels], by default x itself."""
        x = as_feature_map(x, self.in_channels, self.dtype)
        guidance = x if guidance is None else guidance
        if guidance.ndim != 4 or guidance.shape[:3] != x.shape[:3]:
            raise UserError(f"`guidance` must be [B, H, W, …] = {x.shape[:3]} as x is, got {guidance.shape}.")
        gaussian = gaussian_filters(guidance, self.kernel_size, stride=self.stride, dilation=self.dilation)
        channel = None
        if self.filters is not None:
            weights = self.filters[...].astype(x.dtype)
            channel = jnp.broadcast_to(weights[None], (x.shape[0], *weights.shape))
        return dynamic_filter(
            x,
            gaussian[..., None, :].astype(x.dtype),
            channel,
            stride=self.stride,
            dilation=self.dilation,
            implementation=self.implementation,
        )


class PACUp(nnx.Module):
    r"""The transposed, depthwise form, adapted to a guidance: [B, H, W, C] to [B, S·H, S·W, C].

    .. math:: y_{p,c} = \sum_t [S \mid p + t] \; \exp\!\big(-\tfrac12 \lVert f_p - f_{p+t} \rVert^2\big)
                        \; w_{t,c} \; x_{(p+t)/S,\,c}, \qquad t \in \{-\lfloor K/2 \rfloor, …, \lfloor K/2 \rfloor\}^2

    p runs over the pixels of the output, and x lies on every S-th of them: the paper's transposed convolution with a
    stride of S, a padding of ⌊K/2⌋ and an output padding of S − 1, without its mixing of channels (as in `PAC`; a 1×1
    convolution after this layer mixes them) and without a bias. A sub-pixel sees K/S × K/S pixels of x, a
    (2⌈⌊K/2⌋/S⌉ + 1)² filter of `dynamic_upsample` with zeros in it.

    Args:
        in_channels: C.
        scale: S ≥ 1.
        kernel_size: K, odd, in pixels of the output; at least 2S − 1 for every output pixel to see one of x. The
            default is 5, or 2S − 1 where that is more.
        learned: whether w exists; without it every tap has the weight 1.
        kernel_init: of w, as of a convolution kernel [K, K, 1, C].
        implementation: of `pallas_kernels.dynamic_upsample`.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: K is even or smaller than 2S − 1, or the guidance is not as large as the output.

    Reference: Su et al., "Pixel-Adaptive Convolutional Neural Networks", CVPR 2019, Section 4.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x, guidance: PACUp(8, scale=2, rngs=nnx.Rngs(0))(x, guidance)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 8)), jnp.ones((2, 10, 8, 3))).shape
    (2, 10, 8, 8)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        scale: int = 2,
        kernel_size: int | None = None,
        learned: bool = True,
        kernel_init: Initializer = uniform_fan_in,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kernel_size = max(5, 2 * scale - 1) if kernel_size is None else kernel_size
        if kernel_size % 2 == 0 or kernel_size < 2 * scale - 1:
            raise UserError(f"`kernel_size` must be odd and at least 2·scale - 1, got {kernel_size} for {scale=}.")
        self.filters = nnx.data(None)
        if learned:
            filters = kernel_init(rngs.params(), (kernel_size, kernel_size, 1, in_channels), param_dtype)
            self.filters = nnx.Param(filters.reshape(kernel_size**2, in_channels))
        self.kernel_size = kernel_size
        self.scale = scale
        self.implementation = implementation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array, guidance: Array | None = None) -> Array:
        """x [B, H, W, C] and a guidance [B, S·H, S·W, any number of channels], by default x, each pixel repeated."""
        x = as_feature_map(x, self.in_channels, self.dtype)
        batch, height, width, channels = x.shape
        expected = (batch, self.scale * height, self.scale * width)
        if guidance is not None and (guidance.ndim != 4 or guidance.shape[:3] != expected):
            raise UserError(f"`guidance` must be [B, S·H, S·W, …] = {expected}, got {guidance.shape}.")
        taps, exists = sub_pixel_taps(self.kernel_size, self.scale)
        channel = jnp.broadcast_to(jnp.asarray(exists, x.dtype)[:, :, None], (*taps.shape, channels))
        if self.filters is not None:
            channel = channel * self.filters[...].astype(x.dtype)[taps]
        return dynamic_upsample(
            x,
            self._gaussians(x, guidance)[:, :, :, :, None].astype(x.dtype),
            jnp.broadcast_to(channel[None], (batch, *channel.shape)),
            scale=self.scale,
            implementation=self.implementation,
        )

    def _gaussians(self, x: Array, guidance: Array | None) -> Array:
        """[B, H, W, S², T']."""
        if guidance is not None:
            return sub_pixel_gaussians(guidance, self.kernel_size, self.scale)
        side = 2 * _halo(self.kernel_size, self.scale) + 1
        gaussians = gaussian_filters(x, side)  # the same for all sub-pixels
        return jnp.broadcast_to(gaussians[:, :, :, None], (*gaussians.shape[:3], self.scale**2, side**2))


def gaussian_filters(guidance: Array, kernel_size: int, *, stride: int = 1, dilation: int = 1) -> Array:
    r"""Similarity of a pixel to its neighbours, :math:`\exp(-\frac12 \lVert f_p - f_{p+t} \rVert^2)`.

    [B, H, W, F] to [B, ceil(H/stride), ceil(W/stride), T], in float32 (float64 for float64).
    """
    height, width = guidance.shape[1:3]
    wide = guidance.astype(accumulator_dtype(guidance))
    border = dilation * (kernel_size // 2)
    padded = jnp.pad(wide, ((0, 0), (border, border), (border, border), (0, 0)))
    centre = strided(wide, stride)
    offsets = range(0, 2 * border + 1, dilation)
    views = (strided(padded, stride, start=(i, j), size=(height, width)) for i in offsets for j in offsets)
    distances = [((view - centre) ** 2).sum(-1) for view in views]
    return jnp.exp(-jnp.stack(distances, axis=-1) / 2)


def sub_pixel_gaussians(guidance: Array, kernel_size: int, scale: int) -> Array:
    """Similarity of an output pixel to the pixels of x around it: [B, S·H, S·W, F] to [B, H, W, S², T'].

    T' counts the pixels of x in a window of K×K outputs, in `sub_pixel_taps`' order. In float32 (float64 for float64).
    """
    rows, columns = guidance.shape[1] // scale, guidance.shape[2] // scale
    wide = guidance.astype(accumulator_dtype(guidance))
    fine = blocks(wide, scale)
    halo = _halo(kernel_size, scale)
    coarse = jnp.pad(strided(wide, scale), ((0, 0), (halo, halo), (halo, halo), (0, 0)))
    offsets = range(2 * halo + 1)
    views = (coarse[:, i : i + rows, j : j + columns, None] for i in offsets for j in offsets)
    distances = [((view - fine) ** 2).sum(-1) for view in views]
    return jnp.exp(-jnp.stack(distances, axis=-1) / 2)


def sub_pixel_taps(kernel_size: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """The tap of K×K for each sub-pixel and pixel of x, [S², T'], and whether it exists.

    The pixel of x that is `a` rows below row i of a patch of S×S outputs lies S·a - i outputs below.
    """
    halo = _halo(kernel_size, scale)
    along = scale * np.arange(-halo, halo + 1) - np.arange(scale)[:, None] + kernel_size // 2  # [S, 2·halo + 1]
    inside = (along >= 0) & (along < kernel_size)
    taps = along[:, None, :, None] * kernel_size + along[None, :, None, :]
    exists = inside[:, None, :, None] & inside[None, :, None, :]
    size = (scale**2, (2 * halo + 1) ** 2)
    return np.where(exists, taps, 0).reshape(size), exists.reshape(size)


def _halo(kernel_size: int, scale: int) -> int:
    """The halo of a K×K filter on the output in pixels of x: ⌈⌊K/2⌋ / S⌉."""
    return -(-(kernel_size // 2) // scale)
