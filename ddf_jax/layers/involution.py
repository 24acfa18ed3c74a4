"""The involution of Li et al., CVPR 2021."""

from typing import Any, Protocol

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import average_pool
from ddf_jax.layers.batch_norm import BatchNorm, norm_relu
from ddf_jax.layers.convolution import PointwiseConv
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import dynamic_filter


class FilterGenerator(Protocol):
    """Makes a generator of filters per pixel and group: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), G, T]."""

    def __call__(
        self, in_channels: int, groups: int, taps: int, /, *, stride: int, reduction: int, **dtypes: Any
    ) -> nnx.Module: ...


class PixelGenerator(nnx.Module):
    """Generates the filters of a pixel from that pixel alone (at a stride, from the mean of stride×stride pixels).

    1×1 convolution from C to C/reduction, batch normalisation, ReLU, 1×1 convolution to G·T values.
    """

    def __init__(self, in_channels: int, groups: int, taps: int, *, stride: int, reduction: int, **dtypes: Any):
        reduced = in_channels // reduction
        if reduced < 1:
            raise UserError(f"`reduction` must leave at least one channel of {in_channels=}, got {reduction}.")
        self.reduce = PointwiseConv(in_channels, reduced, **dtypes)
        self.norm = BatchNorm(reduced, **dtypes)
        self.span = PointwiseConv(reduced, groups * taps, use_bias=True, **dtypes)
        self.stride = stride
        self.shape = (groups, taps)

    def __call__(self, x: Array) -> Array:
        y = norm_relu(self.norm, self.reduce(average_pool(x, self.stride)))
        filters = self.span(y)
        return filters.reshape(*filters.shape[:3], *self.shape)


class Involution(nnx.Module):
    r"""A filter per pixel, shared by a group of channels: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].

    .. math:: y_{p,c} = \sum_t D_{p,g(c),t} \; x_{p+t,c}

    Args:
        in_channels: C.
        kernel_size: K, odd.
        stride: of the filter, as in a convolution.
        dilation: of the filter, as in a convolution.
        group_channels: C/G, the channels that share a filter.
        reduction: ratio of C to the generator's hidden channels.
        generator: factory of the module that generates the filters; the paper's is `PixelGenerator`.
        implementation: of `pallas_kernels.dynamic_filter`.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the groups do not divide C, or the reduction leaves no channel.

    Reference: Li et al., "Involution: Inverting the Inherence of Convolution for Visual Recognition", CVPR 2021.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: Involution(32, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 15, 20, 32))).shape
    (2, 8, 10, 32)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        kernel_size: int = 7,
        stride: int = 1,
        dilation: int = 1,
        group_channels: int = 16,
        reduction: int = 4,
        generator: FilterGenerator = PixelGenerator,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if in_channels % group_channels:
            raise UserError(f"`group_channels` must divide `in_channels`, got {group_channels} for {in_channels=}.")
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        groups, taps = in_channels // group_channels, kernel_size**2
        self.spatial_branch = generator(in_channels, groups, taps, stride=stride, reduction=reduction, **dtypes)
        self.stride = stride
        self.dilation = dilation
        self.implementation = implementation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        return dynamic_filter(
            x,
            self.spatial_branch(x),
            None,
            stride=self.stride,
            dilation=self.dilation,
            implementation=self.implementation,
        )
