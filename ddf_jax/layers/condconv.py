"""The conditionally parameterised convolution of Yang et al., NeurIPS 2019."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import global_average, per_sample_conv
from ddf_jax.layers.convolution import Linear
from ddf_jax.layers.initializers import Initializer, normal_fan_out, stacked
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import dynamic_filter


class Route(Protocol):
    """Makes a module that weights the experts for a sample: [B, H, W, C] to [B, experts]."""

    def __call__(self, in_channels: int, experts: int, /, **dtypes: Any) -> nnx.Module: ...


class SigmoidRoute(nnx.Module):
    """Independent weights of the experts, from the average of the sample: [B, H, W, C] to [B, experts]."""

    def __init__(self, in_channels: int, experts: int, **dtypes: Any):
        self.linear = Linear(in_channels, experts, **dtypes)

    def __call__(self, x: Array) -> Array:
        return jax.nn.sigmoid(self.linear(global_average(x)))


class CondConv(nnx.Module):
    r"""A convolution with a mixture of experts as its kernel: [B, H, W, C] to [B, Ho, Wo, out_channels].

    .. math:: y = \Big(\sum_i \alpha_i W_i\Big) * x, \qquad \alpha = \text{sigmoid}(R \, \text{average}(x) + b)

    Ho = ceil(H/stride), Wo = ceil(W/stride). The kernel is mixed once for a sample, so many experts cost one
    convolution.

    Args:
        in_channels: C.
        out_channels: of every expert.
        kernel_size: K, odd.
        stride: of the convolution.
        dilation: of the convolution.
        experts: their number.
        route: factory of the module that weights the experts; the paper's is `SigmoidRoute`.
        kernel_init: initialiser of the weights.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Reference: Yang et al., "CondConv: Conditionally Parameterized Convolutions for Efficient Inference", NeurIPS 2019.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: CondConv(8, 12, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 8))).shape
    (2, 3, 2, 12)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        experts: int = 8,
        route: Route = SigmoidRoute,
        kernel_init: Initializer = normal_fan_out,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.route = route(in_channels, experts, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.kernels = nnx.Param(stacked(kernel_init, rngs.params(), experts, shape, param_dtype))
        self.stride = stride
        self.dilation = dilation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        kernels = _mixed(self.route(x), self.kernels[...])
        return per_sample_conv(x, kernels, stride=self.stride, dilation=self.dilation)


class DepthwiseCondConv(nnx.Module):
    """`CondConv` without mixing of channels: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].

    It is a dynamic filter without a spatial filter.

    Args:
        in_channels: C.
        kernel_size: K, odd.
        stride: of the filter.
        dilation: of the filter.
        experts: their number.
        kernel_init: initialiser of the weights.
        implementation: of `pallas_kernels.dynamic_filter`.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Reference: as for `CondConv`.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: DepthwiseCondConv(8, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 8))).shape
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
        experts: int = 8,
        kernel_init: Initializer = normal_fan_out,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, 1, in_channels)
        self.route = SigmoidRoute(in_channels, experts, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        filters = stacked(kernel_init, rngs.params(), experts, shape, param_dtype)
        self.filters = nnx.Param(filters.reshape(experts, kernel_size**2, in_channels))
        self.stride = stride
        self.dilation = dilation
        self.implementation = implementation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        channel = _mixed(self.route(x), self.filters[...])
        options = {"stride": self.stride, "dilation": self.dilation, "implementation": self.implementation}
        return dynamic_filter(x, None, channel, **options)


def _mixed(weights: Array, kernels: Array) -> Array:
    """The weighted sum of the kernels for each sample: [B, experts] and [experts, …] to [B, …]."""
    flat = kernels.astype(weights.dtype).reshape(kernels.shape[0], -1)
    return (weights @ flat).reshape(-1, *kernels.shape[1:])
