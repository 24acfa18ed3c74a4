"""The bottleneck attention module of Park et al., BMVC 2018."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import global_average
from ddf_jax.layers.batch_norm import BatchNorm
from ddf_jax.layers.convolution import Conv, PointwiseConv
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from ddf_jax.layers.squeeze_excitation import SqueezeExcitation


class BAM(nnx.Module):
    r"""Attention to channels and pixels at once, between two stages: [B, H, W, C] to the same shape.

    .. math:: y = x + x \cdot \text{sigmoid}(\text{norm}(m(\text{average}(x))) + s(x))

    m is a perceptron C → C/r → C; s a 1×1 convolution to C/r channels, two dilated 3×3 ones and a 1×1 one to one map,
    each with batch normalisation, all but the last with ReLU.

    Args:
        channels: C.
        reduction: r.
        dilation: of the 3×3 convolutions.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Reference: Park et al., "BAM: Bottleneck Attention Module", BMVC 2018, Eq. 2 to 5.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: BAM(32, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 32))).shape
    (2, 5, 4, 32)
    """

    @python_numbers
    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        dilation: int = 4,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        reduced = channels // reduction
        self.channel = SqueezeExcitation(channels, reduction=reduction, **dtypes)
        self.channel_norm = BatchNorm(channels, **dtypes)
        self.convs = nnx.List(
            [
                PointwiseConv(channels, reduced, **dtypes),
                *(Conv(reduced, reduced, dilation=dilation, **dtypes) for _ in range(2)),
                PointwiseConv(reduced, 1, **dtypes),
            ]
        )
        self.norms = nnx.List([BatchNorm(size, **dtypes) for size in (reduced, reduced, reduced, 1)])
        self.channels = channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.channels, self.dtype)
        channels = self.channel_norm(self.channel.logits(global_average(x)))
        pixels = x
        for position, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            pixels = norm(conv(pixels if position == 0 else jax.nn.relu(pixels)))
        return x + x * jax.nn.sigmoid(channels[:, None, None] + pixels)
