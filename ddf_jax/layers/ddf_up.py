"""The upsampling form of the decoupled dynamic filter, Zhou et al., CVPR 2021."""

import functools

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.layers.convolution import Conv, PointwiseConv
from ddf_jax.layers.ddf import ChannelBranch
from ddf_jax.layers.filter_norm import FilterNorm, FilterNormalization, OperatorOptions, operator_options
from ddf_jax.layers.initializers import Initializer, uniform_fan_in
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import Combine, dynamic_upsample

LINEAR_NORM: FilterNormalization = functools.partial(FilterNorm, gain=1.0)


class DDFUp(nnx.Module):
    r"""The upsampling DDF: [B, H, W, C] to [B, S·H, S·W, C], a pair of filters for each of the S² sub-pixels.

    .. math:: y_{S p + (i, j),\,c} = \sum_t (D^{sp}_{s,p,t} \circ D^{ch}_{s,c,t}) \; x_{p+t,c}, \qquad s = i S + j

    The spatial filters are generated from a guidance [B, H, W, guidance_channels], or without one from x: for each
    sub-pixel a depthwise convolution (where its size is not 1), then a 1×1 convolution. The channel filters come from
    the average of x, as in `DDF`. Both are normalised over their taps.

    Args:
        in_channels: C.
        scale: S ≥ 1.
        kernel_size: K of the filter, odd, at least 3 with filter normalisation.
        dilation: of the filter.
        heads: G, groups of channels with spatial filters of their own.
        squeeze_ratio: σ; each channel branch has ⌊σC⌋ hidden units.
        combine: "mul" or "add".
        guidance_channels: of the guidance; None for a layer that is called with x alone.
        guidance_kernel_size: of the depthwise convolution, odd, padded by half of its size; 1 for none. The default is
            the paper's: 3 without a guidance and 1 with one. (The official code has the opposite.)
        normalization: as in `DDF`; the default one has the gain of a linear output, 1.
        kernel_init: as in `DDF`.
        implementation: of `pallas_kernels.dynamic_upsample`.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: σC is below 1, the heads do not divide C, or the guidance does not fit, is missing or is unexpected.

    Reference: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Section 6, Figure 5.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x, guidance: DDFUp(16, scale=3, guidance_channels=4, rngs=nnx.Rngs(0))(x, guidance)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 7, 16)), jnp.ones((2, 5, 7, 4))).shape
    (2, 15, 21, 16)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        scale: int = 2,
        kernel_size: int = 3,
        dilation: int = 1,
        heads: int = 1,
        squeeze_ratio: float = 0.2,
        combine: Combine = "mul",
        guidance_channels: int | None = None,
        guidance_kernel_size: int | None = None,
        normalization: FilterNormalization = LINEAR_NORM,
        kernel_init: Initializer = uniform_fan_in,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if in_channels % heads:
            raise UserError(f"`heads` must divide `in_channels`, got {heads=} for {in_channels=}.")
        if guidance_kernel_size is None:
            guidance_kernel_size = 3 if guidance_channels is None else 1
        if guidance_kernel_size < 1 or guidance_kernel_size % 2 == 0:
            raise UserError(f"`guidance_kernel_size` must be odd, 1 for no convolution, got {guidance_kernel_size}.")
        source, taps = in_channels if guidance_channels is None else guidance_channels, kernel_size**2
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.spatial_branch, self.channel_branch = nnx.List(), nnx.List()
        self.normalization: OperatorOptions = ()
        for _ in range(scale**2):
            norm = normalization((heads, taps), tap_axis=-1, learned=False, **dtypes)
            self.spatial_branch.append(
                GuidedBranch(source, heads, taps, guidance_kernel_size, norm, kernel_init, **dtypes)
            )
            self.normalization = operator_options(norm)
            norm = normalization((taps, in_channels), tap_axis=-2, learned=True, **dtypes)
            self.channel_branch.append(ChannelBranch(in_channels, taps, squeeze_ratio, norm, kernel_init, **dtypes))
        self.scale = scale
        self.dilation = dilation
        self.combine: Combine = combine
        self.guidance_channels = guidance_channels
        self.implementation = implementation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array, guidance: Array | None = None) -> Array:
        """x [B, H, W, C] and, where the layer has `guidance_channels`, a guidance [B, H, W, guidance_channels]."""
        x = as_feature_map(x, self.in_channels, self.dtype)
        guidance = self._guidance(x, guidance)
        # Filters are stacked, at T values for a sub-pixel; outputs, at C values, never are.
        return dynamic_upsample(
            x,
            jnp.stack([branch(guidance) for branch in self.spatial_branch], axis=3),
            jnp.stack([branch(x) for branch in self.channel_branch], axis=1),
            scale=self.scale,
            dilation=self.dilation,
            combine=self.combine,
            implementation=self.implementation,
            **dict(self.normalization),
        )

    def _guidance(self, x: Array, guidance: Array | None) -> Array:
        if self.guidance_channels is None:
            if guidance is not None:
                raise UserError("A layer made without `guidance_channels` must be called with x alone, got a guidance.")
            return x
        expected = (*x.shape[:3], self.guidance_channels)
        if guidance is None or guidance.shape != expected:
            got = None if guidance is None else guidance.shape
            raise UserError(f"`guidance` must be [B, H, W, guidance_channels] = {expected} as x is, got {got}.")
        return guidance.astype(x.dtype)


class GuidedBranch(nnx.Module):
    """The spatial filters of one sub-pixel: [B, H, W, in_channels] to [B, H, W, G, T], as of `SpatialBranch`."""

    def __init__(
        self,
        in_channels: int,
        heads: int,
        taps: int,
        guidance_kernel_size: int,
        norm: nnx.Module,
        kernel_init: Initializer,
        *,
        dtype: jnp.dtype | None,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        options = {
            "use_bias": True,
            "kernel_init": kernel_init,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.convs = nnx.List()
        if guidance_kernel_size > 1:
            depthwise = {"kernel_size": guidance_kernel_size, "groups": in_channels}
            self.convs.append(Conv(in_channels, in_channels, **depthwise, **options))
        self.convs.append(PointwiseConv(in_channels, heads * taps, **options))
        self.norm = norm
        self.shape = (heads, taps)

    def __call__(self, guidance: Array) -> Array:
        filters = guidance
        for conv in self.convs:
            filters = conv(filters)
        filters = filters.reshape(*filters.shape[:3], *self.shape)
        return filters if operator_options(self.norm) else self.norm(filters)
