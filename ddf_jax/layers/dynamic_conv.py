"""The dynamic convolution of Chen et al., CVPR 2020."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.layers.condconv import CondConv, mixed
from ddf_jax.layers.convolution import Linear
from ddf_jax.layers.per_sample import per_sample_conv
from ddf_jax.layers.pooling import global_average


class DynamicConv(CondConv):
    r"""`CondConv` with attention over its experts, whose weights sum to 1: [B, H, W, C] to [B, Ho, Wo, out_channels].

    .. math:: \alpha = \text{softmax}(z / \tau), \qquad
        z = W_2 \, \text{relu}(W_1 \, \text{average}(x) + b_1) + b_2

    Args:
      in_channels: C.
      out_channels: of every expert.
      kernel_size, stride: of the convolution.
      experts: how many there are.
      reduction: the attention has C/reduction hidden units.
      temperature: τ; a large one trains all experts (the paper starts at 30).

    Reference: Chen et al., "Dynamic Convolution: Attention over Convolution Kernels", CVPR 2020.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: DynamicConv(8, 12, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 8))).shape
    (2, 3, 2, 12)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        experts: int = 4,
        reduction: int = 4,
        temperature: float = 30.0,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        hidden = max(in_channels // reduction, 1)
        super().__init__(in_channels, out_channels, kernel_size=kernel_size, stride=stride, experts=experts, **dtypes)
        self.squeeze = Linear(in_channels, hidden, **dtypes)
        self.route = Linear(hidden, experts, **dtypes)
        self.temperature = temperature

    def __call__(self, x: Array) -> Array:
        x = x if self.dtype is None else x.astype(self.dtype)
        logits = self.route(jax.nn.relu(self.squeeze(global_average(x))))
        weights = jax.nn.softmax(logits / self.temperature)
        return per_sample_conv(x, mixed(weights, self.kernels[...]), stride=self.stride)
