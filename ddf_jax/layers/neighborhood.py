"""The neighbourhood attention of Hassani et al., CVPR 2023."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import check_odd
from ddf_jax.layers.convolution import PointwiseConv
from ddf_jax.layers.initializers import Normal
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import neighborhood_attention

INIT = Normal(0.02)
"""Of the weights of vision transformers."""


class NeighborhoodAttention(nnx.Module):
    r"""Attention of each pixel to the K×K pixels nearest to it inside the image: [B, H, W, C] to the same shape.

    .. math:: y_p = W \sum_{p'} \text{softmax}_{p'}\Big(\frac{q_p \cdot k_{p'}}{\sqrt{d}} + b_{p'-p}\Big) \, v_{p'}

    for every head of d channels, with linear maps q, k and v of x, and a learned bias b of the offset. The window of a
    pixel near the border is shifted to lie inside. An image smaller than a window gets zeros at the right and bottom.

    Args:
        channels: C.
        heads: which divide C.
        kernel_size: K, odd.
        dilation: pixels between neighbours.
        implementation: of `pallas_kernels.neighborhood_attention`.
        dtype: compute dtype (default: that of x; float32 for integers); logits are in float32.
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the kernel size is even, or the heads do not divide the channels.

    Reference: Hassani et al., "Neighborhood Attention Transformer", CVPR 2023.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: NeighborhoodAttention(32, heads=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 15, 5, 32))).shape
    (2, 15, 5, 32)
    """

    @python_numbers
    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        kernel_size: int = 7,
        dilation: int = 1,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_odd(kernel_size=kernel_size)
        if channels % heads:
            raise UserError(f"`heads` must divide {channels=}, got {heads}.")
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        linear = {"use_bias": True, "kernel_init": INIT, "bias_init": nnx.initializers.zeros, **dtypes}
        self.qkv = PointwiseConv(channels, 3 * channels, **linear)
        offsets = 2 * kernel_size - 1
        self.bias = nnx.Param(INIT(rngs.params(), (heads, offsets, offsets), param_dtype))
        self.project = PointwiseConv(channels, channels, **linear)
        self.heads, self.kernel_size, self.dilation = heads, kernel_size, dilation
        self.implementation = implementation
        self.channels = channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.channels, self.dtype)
        (height, width), window = x.shape[1:3], self.kernel_size * self.dilation
        # A symbolic size, of a program for any size, is taken for one of at least a window.
        missing = ((0, max(window - side, 0) if isinstance(side, int) else 0) for side in (height, width))
        q, k, v = jnp.split(self.qkv(jnp.pad(x, ((0, 0), *missing, (0, 0)))), 3, axis=-1)
        y = neighborhood_attention(
            q,
            k,
            v,
            kernel_size=self.kernel_size,
            num_heads=self.heads,
            dilation=self.dilation,
            border="shift",
            bias=self.bias[...].reshape(self.heads, -1),
            implementation=self.implementation,
        )
        return self.project(y[:, :height, :width])
