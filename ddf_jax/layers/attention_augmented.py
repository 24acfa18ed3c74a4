"""The attention-augmented convolution of Bello et al., ICCV 2019."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import average_pool
from ddf_jax.layers.convolution import Conv, PointwiseConv
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import accumulator_dtype


class AttentionAugmentedConv(nnx.Module):
    r"""A convolution whose last channels are self-attention over all pixels: [B, H, W, C] to [B, Ho, Wo, out_channels].

    .. math:: y = [w * x, \; W_o \, \text{attention}(q, k, v)]
    .. math:: \text{attention}_p = \sum_{p'} \text{softmax}_{p'}\Big(\frac{q_p \cdot (k_{p'} + r^H_{h'-h} +
        r^W_{w'-w})}{\sqrt{d}}\Big) v_{p'}

    for every head of d query channels, with learned embeddings r of the relative position.

    Args:
        in_channels: C.
        out_channels: of both parts together.
        kernel_size: of the convolution.
        dilation: of the convolution.
        stride: of both parts; Ho = ceil(H/stride), Wo = ceil(W/stride).
        heads: of the attention.
        key_channels: of all heads together.
        value_channels: of all heads together, the attention's share of the output.
        size: M; embeddings exist for relative positions of -M + 1 to M - 1, farther ones share the last.
        attention_stride: averages the attention's input over this many pixels, and enlarges its result by bilinear
            interpolation, to spare memory on large maps.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the heads do not divide the key or value channels, or these leave no channel to the convolution.

    Reference: Bello et al., "Attention Augmented Convolutional Networks", ICCV 2019, Section 3.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: AttentionAugmentedConv(32, 48, value_channels=16, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 32))).shape
    (2, 3, 2, 48)
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
        heads: int = 8,
        key_channels: int = 160,
        value_channels: int = 8,
        size: int = 14,
        attention_stride: int = 1,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if key_channels % heads or value_channels % heads:
            raise UserError(f"`heads` must divide {key_channels=} and {value_channels=}, got {heads}.")
        if value_channels >= out_channels:
            raise UserError(f"`value_channels` must be less than {out_channels=}, got {value_channels}.")
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        convolution = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
        self.conv = Conv(in_channels, out_channels - value_channels, **convolution, **dtypes)
        self.project = PointwiseConv(in_channels, 2 * key_channels + value_channels, **dtypes)
        self.mix = PointwiseConv(value_channels, value_channels, **dtypes)
        depth = key_channels // heads
        shape = (2, 2 * size - 1, depth)  # for rows and columns
        self.relative = nnx.Param(jax.random.normal(rngs.params(), shape, param_dtype) * depth**-0.5)
        self.heads = heads
        self.splits = (key_channels, 2 * key_channels)
        self.stride = stride
        self.attention_stride = attention_stride
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        local = self.conv(x)
        pooled = average_pool(x, self.stride * self.attention_stride)
        attended = self.mix(self._attend(*jnp.split(self.project(pooled), self.splits, axis=-1)))
        if self.attention_stride > 1:
            attended = jax.image.resize(attended, (*local.shape[:3], attended.shape[-1]), "bilinear")
        return jnp.concatenate([local, attended], axis=-1)

    def _attend(self, query: Array, key: Array, value: Array) -> Array:
        """[B, H, W, key_channels] twice and [B, H, W, value_channels] to the shape of the last."""
        query, key, value = (t.reshape(*t.shape[:3], self.heads, -1) for t in (query, key, value))
        depth = query.shape[-1]
        query = query * depth**-0.5
        wide = accumulator_dtype(query)
        rows, columns = (
            table.astype(query.dtype)[_offsets(length, table.shape[0])]
            for table, length in zip(self.relative[...], query.shape[1:3], strict=True)
        )
        logits = jnp.einsum("bhwnd,bijnd->bnhwij", query, key, preferred_element_type=wide)
        logits += jnp.einsum("bhwnd,hid->bnhwi", query, rows, preferred_element_type=wide)[..., None]
        logits += jnp.einsum("bhwnd,wjd->bnhwj", query, columns, preferred_element_type=wide)[..., None, :]
        weights = jax.nn.softmax(logits, axis=(-2, -1)).astype(value.dtype)
        attended = jnp.einsum("bnhwij,bijnd->bhwnd", weights, value)
        return attended.reshape(*attended.shape[:3], -1)


def _offsets(length: int, embeddings: int) -> Array:
    """For positions p and q, the index of the embedding of q - p: [length, length]."""
    farthest = embeddings // 2
    positions = jnp.arange(length)
    return jnp.clip(positions[None] - positions[:, None], -farthest, farthest) + farthest
