"""The decoupled dynamic filter of Zhou et al., CVPR 2021."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import global_average, relu
from ddf_jax.layers.convolution import PointwiseConv
from ddf_jax.layers.filter_norm import FilterNorm, FilterNormalization, OperatorOptions, operator_options
from ddf_jax.layers.initializers import Initializer, uniform_bias, uniform_fan_in
from ddf_jax.layers.inputs import as_feature_map, promote_dtype
from ddf_jax.layers.options import python_numbers
from pallas_kernels import Combine, accumulator_dtype, dynamic_filter


class DDF(nnx.Module):
    r"""Decoupled dynamic filter: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].

    .. math:: y_{p,c} = \sum_t D^{sp}_{p,t} \circ D^{ch}_{c,t} \; x_{p+t,c}

    The spatial filter of a pixel is a 1×1 convolution of x (with the stride), the channel filter of a sample a squeeze
    and excitation of its average: C → σC → T·C. Both are normalised over their taps before they are combined.

    Args:
        in_channels: C.
        kernel_size: K, odd, at least 3 with filter normalisation.
        stride: of the filter, as in a convolution.
        dilation: of the filter, as in a convolution.
        heads: G, groups of channels with a spatial filter of their own.
        squeeze_ratio: σ; the channel branch has ⌊σC⌋ hidden units.
        combine: "mul" or "add".
        spatial: whether the spatial branch exists.
        channel: whether the channel branch exists; at least one must.
        normalization: factory of the modules that normalise both filters: `FilterNorm`, `FilterBatchNorm`,
            `FilterSigmoid` or your own.
        kernel_init: of both branches' weights; biases start uniform in ±1/√fan_in, as torch's.
        implementation: of `pallas_kernels.dynamic_filter`.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: both branches are off, σC is below 1, or the heads do not divide C.

    Reference: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Section 4.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = DDF(64, stride=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 15, 20, 64))).shape
    (2, 8, 10, 64)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        heads: int = 1,
        squeeze_ratio: float = 0.2,
        combine: Combine = "mul",
        spatial: bool = True,
        channel: bool = True,
        normalization: FilterNormalization = FilterNorm,
        kernel_init: Initializer = uniform_fan_in,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if not (spatial or channel):
            raise UserError("`spatial` and `channel` must not both be False: there would be no filter.")
        if in_channels % heads:
            raise UserError(f"`heads` must divide `in_channels`, got {heads=} for {in_channels=}.")
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        taps = kernel_size**2
        self.normalization: OperatorOptions = ()
        self.spatial_branch = nnx.data(None)
        self.channel_branch = nnx.data(None)
        if spatial:
            norm = normalization((heads, taps), tap_axis=-1, learned=False, **dtypes)
            self.spatial_branch = SpatialBranch(in_channels, heads, taps, stride, norm, kernel_init, **dtypes)
            self.normalization = operator_options(norm)
        if channel:
            norm = normalization((taps, in_channels), tap_axis=-2, learned=True, **dtypes)
            self.channel_branch = ChannelBranch(in_channels, taps, squeeze_ratio, norm, kernel_init, **dtypes)
        self.stride = stride
        self.dilation = dilation
        self.combine: Combine = combine
        self.implementation = implementation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        # In this order, as cotangents are summed from the last use of x to the first, the matrix product of the spatial
        # branch adds its own to the operator's, and what the channel branch adds, one value per channel, comes last.
        channel = None if self.channel_branch is None else self.channel_branch(x)
        spatial = None if self.spatial_branch is None else self.spatial_branch(x)
        return dynamic_filter(
            x,
            spatial,
            channel,
            stride=self.stride,
            dilation=self.dilation,
            combine=self.combine,
            implementation=self.implementation,
            **dict(self.normalization),
        )


class SpatialBranch(nnx.Module):
    """One filter per pixel and head: x [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), G, T].

    Where the operator can normalise the filters (`operator_options`), they are not normalised yet.
    """

    def __init__(
        self,
        in_channels: int,
        heads: int,
        taps: int,
        stride: int,
        norm: nnx.Module,
        kernel_init: Initializer,
        *,
        dtype: jnp.dtype | None,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.conv = PointwiseConv(
            in_channels,
            heads * taps,
            stride=stride,
            use_bias=True,
            kernel_init=kernel_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.norm = norm
        self.shape = (heads, taps)

    def __call__(self, x: Array) -> Array:
        filters = self.conv(x)
        filters = filters.reshape(*filters.shape[:3], *self.shape)
        return filters if operator_options(self.norm) else self.norm(filters)


class ChannelBranch(nnx.Module):
    """One filter per sample and channel: x [B, H, W, C] to [B, T, C] in the dtype of x.

    Computed in float32 (float64 for float64): the products are small, and casts would be kernels of their own.
    """

    def __init__(
        self,
        in_channels: int,
        taps: int,
        squeeze_ratio: float,
        norm: nnx.Module,
        kernel_init: Initializer,
        *,
        dtype: jnp.dtype | None,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        squeezed = int(in_channels * squeeze_ratio)
        if squeezed < 1:
            raise UserError(f"`squeeze_ratio` must leave at least one channel of {in_channels=}, got {squeeze_ratio}.")

        def linear(fan_in: int, out: int) -> nnx.Linear:
            return nnx.Linear(
                fan_in,
                out,
                kernel_init=kernel_init,
                bias_init=uniform_bias(fan_in),
                param_dtype=param_dtype,
                promote_dtype=promote_dtype,
                rngs=rngs,
            )

        self.squeeze = linear(in_channels, squeezed)
        self.excite = linear(squeezed, taps * in_channels)
        self.norm = norm
        self.shape = (taps, in_channels)

    def __call__(self, x: Array) -> Array:
        average = global_average(x.astype(accumulator_dtype(x)))
        filters = self.excite(relu(self.squeeze(average)))
        return self.norm(filters.reshape(-1, *self.shape)).astype(x.dtype)
