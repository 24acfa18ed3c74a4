"""The dynamic convolution of Chen et al., CVPR 2020."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import check_positive, global_average
from ddf_jax.layers.condconv import CondConv
from ddf_jax.layers.convolution import Linear
from ddf_jax.layers.initializers import Initializer, normal_fan_out
from ddf_jax.layers.options import python_numbers


class SoftmaxRoute(nnx.Module):
    """Attention over the experts, from the sample's average through a hidden layer: [B, H, W, C] to [B, experts]."""

    def __init__(self, in_channels: int, experts: int, *, reduction: int, temperature: float, **dtypes: Any):
        check_positive(temperature=temperature)
        hidden = max(in_channels // reduction, 1)
        self.squeeze = Linear(in_channels, hidden, **dtypes)
        self.excite = Linear(hidden, experts, **dtypes)
        self.temperature = temperature

    def __call__(self, x: Array) -> Array:
        logits = self.excite(jax.nn.relu(self.squeeze(global_average(x))))
        return jax.nn.softmax(logits / self.temperature)


class DynamicConv(CondConv):
    r"""`CondConv` with attention over its experts, whose weights sum to 1: [B, H, W, C] to [B, Ho, Wo, out_channels].

    .. math:: \alpha = \text{softmax}(z / \tau), \qquad
        z = W_2 \, \text{relu}(W_1 \, \text{average}(x) + b_1) + b_2

    Args:
        in_channels: C.
        out_channels: of every expert.
        kernel_size: of the convolution.
        stride: of the convolution.
        dilation: of the convolution.
        experts: how many there are.
        reduction: the attention has C/reduction hidden units.
        temperature: τ; a large one trains all experts (the paper starts at 30).
        kernel_init: initialiser of the experts.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the temperature is not positive.

    Reference: Chen et al., "Dynamic Convolution: Attention over Convolution Kernels", CVPR 2020.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: DynamicConv(8, 12, stride=2, rngs=nnx.Rngs(0))(x)
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
        experts: int = 4,
        reduction: int = 4,
        temperature: float = 30.0,
        kernel_init: Initializer = normal_fan_out,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            stride=stride,
            dilation=dilation,
            experts=experts,
            route=functools.partial(SoftmaxRoute, reduction=reduction, temperature=temperature),
            kernel_init=kernel_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
