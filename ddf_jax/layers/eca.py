"""Efficient channel attention of Wang et al., CVPR 2020."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import check_odd, global_average
from ddf_jax.layers.initializers import uniform_fan_in
from ddf_jax.layers.inputs import as_feature_map, promote_dtype
from ddf_jax.layers.options import python_numbers


class ECA(nnx.Module):
    r"""Weights the channels by the averages of their neighbours in channel order: [B, H, W, C] to the same shape.

    .. math:: y = x \cdot \text{sigmoid}(w * \text{average}(x))

    with a convolution over the channels, zero beyond both ends, of k taps and no bias.

    Args:
        channels: C.
        kernel_size: k, odd; by default the paper's function of C, (log₂C + 1)/2 made odd (5 for 256 to 1024 channels, 7
            for 2048).
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the kernel size is even.

    Reference: Wang et al., "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR 2020.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: ECA(32, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 32))).shape
    (2, 5, 4, 32)
    """

    @python_numbers
    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if kernel_size is None:
            kernel_size = max(int((math.log2(channels) + 1) / 2) // 2 * 2 + 1, 3)
        check_odd(kernel_size=kernel_size)
        half = kernel_size // 2
        self.conv = nnx.Conv(
            1,
            1,
            (kernel_size,),
            padding=((half, half),),
            use_bias=False,
            kernel_init=uniform_fan_in,
            dtype=dtype,
            param_dtype=param_dtype,
            promote_dtype=promote_dtype,
            rngs=rngs,
        )
        self.channels = channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.channels, self.dtype)
        logits = self.conv(global_average(x)[..., None])[..., 0]
        return x * jax.nn.sigmoid(logits)[:, None, None]
