"""The depthwise WeightNet of Ma et al., ECCV 2020."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import global_average
from ddf_jax.layers.convolution import Linear
from ddf_jax.layers.initializers import Initializer, uniform_fan_in
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import dynamic_filter


class DepthwiseWeightNet(nnx.Module):
    r"""A depthwise filter from each sample's average: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].

    .. math:: D_{t,c} = w_{t,c} \, a_c, \qquad a = \text{sigmoid}(W_2 (W_1 \, \text{average}(x) + b_1) + b_2)

    The T values of a channel's filter come from that channel's one activation (a grouped fully connected layer). It is
    a dynamic filter without a spatial filter.

    Args:
        in_channels: C.
        kernel_size: K, odd.
        stride: of the filter.
        dilation: of the filter.
        reduction: ratio of C to the hidden units, at least 16.
        kernel_init: initialiser of the weights.
        implementation: of `pallas_kernels.dynamic_filter`.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Reference: Ma et al., "WeightNet: Revisiting the Design Space of Weight Networks", ECCV 2020; sizes as in its code.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: DepthwiseWeightNet(8, stride=2, rngs=nnx.Rngs(0))(x)
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
        reduction: int = 16,
        kernel_init: Initializer = uniform_fan_in,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        hidden = max(16, in_channels // reduction)
        taps = kernel_size**2
        self.squeeze = Linear(in_channels, hidden, **dtypes)
        self.excite = Linear(hidden, in_channels, **dtypes)
        # Every filter value has one input, its channel's activation.
        filters = kernel_init(rngs.params(), (1, taps * in_channels), param_dtype)
        self.filters = nnx.Param(filters.reshape(taps, in_channels))
        self.stride = stride
        self.dilation = dilation
        self.implementation = implementation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        activations = jax.nn.sigmoid(self.excite(self.squeeze(global_average(x))))
        channel = self.filters[...].astype(x.dtype)[None] * activations[:, None]
        options = {"stride": self.stride, "dilation": self.dilation, "implementation": self.implementation}
        return dynamic_filter(x, None, channel, **options)
