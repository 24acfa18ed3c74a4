"""The convolutional block attention module of Woo et al., ECCV 2018."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import global_average, maximum
from ddf_jax.layers.batch_norm import BatchNorm
from ddf_jax.layers.convolution import Conv
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from ddf_jax.layers.squeeze_excitation import SqueezeExcitation


class CBAM(nnx.Module):
    r"""Weights first the channels, then the pixels: [B, H, W, C] to the same shape.

    .. math:: z = x \cdot \text{sigmoid}(m(\text{average}(x)) + m(\max(x)))
    .. math:: y = z \cdot \text{sigmoid}(\text{norm}(w * [\max_c z, \text{average}_c z]))

    with one perceptron m for both, as in squeeze and excitation, and a 7×7 convolution of two maps to one.

    Args:
        channels: C.
        reduction: ratio of C to the hidden units of m.
        kernel_size: of the convolution.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Reference: Woo et al., "CBAM: Convolutional Block Attention Module", ECCV 2018; batch normalisation as in its code.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: CBAM(32, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 32))).shape
    (2, 5, 4, 32)
    """

    @python_numbers
    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        kernel_size: int = 7,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.channel = SqueezeExcitation(channels, reduction=reduction, **dtypes)
        self.conv = Conv(2, 1, kernel_size=kernel_size, **dtypes)
        self.norm = BatchNorm(1, **dtypes)
        self.channels = channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.channels, self.dtype)
        channels = self.channel.logits(global_average(x)) + self.channel.logits(maximum(x, 1, 2))
        z = x * jax.nn.sigmoid(channels)[:, None, None]
        maps = jnp.stack([maximum(z, 3), z.mean(-1)], axis=-1)
        return z * jax.nn.sigmoid(self.norm(self.conv(maps)))
