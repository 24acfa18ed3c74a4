"""The stand-alone self-attention of Ramachandran et al., NeurIPS 2019."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import average_pool, blocks, check_odd, depth_to_space
from ddf_jax.layers.convolution import PointwiseConv
from ddf_jax.layers.initializers import Normal, uniform_fan_in
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import accumulator_dtype, dynamic_filter, local_correlation


class SelfAttention(nnx.Module):
    r"""Attention to the K×K pixels around each: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), out_channels].

    .. math:: y_p = \sum_t \text{softmax}_t(q_p \cdot k_{p+t} + q_p \cdot r_t) \, v_{p+t}

    for every head, with linear maps q, k and v of x, and learned embeddings r of the offset: the first half of r is one
    of its row, the second half one of its column. Keys and values outside the image are zero and have their share of
    the softmax. A stride averages y over stride×stride pixels.

    Args:
        in_channels: C.
        out_channels: of all heads together, for queries, keys and values alike.
        kernel_size: K, odd.
        stride: of the average.
        heads: N; a head has an even number out_channels/N of channels.
        implementation: of `pallas_kernels.dynamic_filter` and `local_correlation`.
        dtype: compute dtype (default: that of x; float32 for integers); logits are in float32.
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the kernel size is even, or the heads do not divide the output channels into even numbers.

    Reference: Ramachandran et al., "Stand-Alone Self-Attention in Vision Models", NeurIPS 2019, Section 3.1. Linear
    maps of all channels, not of each head's, and embeddings of each head's own give the published parameters.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: SelfAttention(32, 48, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 15, 20, 32))).shape
    (2, 8, 10, 48)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 7,
        stride: int = 1,
        heads: int = 8,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_odd(kernel_size=kernel_size)
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        # Without a factor before the softmax, larger weights would saturate it.
        self.project = PointwiseConv(in_channels, 3 * out_channels, kernel_init=uniform_fan_in, **dtypes)
        self.offsets = OffsetEmbeddings(kernel_size, heads, out_channels, param_dtype=param_dtype, rngs=rngs)
        self.kernel_size, self.stride, self.heads = kernel_size, stride, heads
        self.implementation = implementation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        query, key, value = jnp.split(self.project(x), 3, axis=-1)
        wide = query.astype(accumulator_dtype(query))
        options: Any = {"kernel_size": self.kernel_size, "implementation": self.implementation}
        logits = local_correlation(wide, key, groups=self.heads, **options)
        queries, embeddings = _split(query, self.heads), self.offsets(query.dtype)
        embeddings = embeddings.reshape(-1, *embeddings.shape[2:])  # of all taps, row by row
        logits += jnp.einsum("bhwnd,tnd->bhwnt", queries, embeddings, preferred_element_type=wide.dtype)
        return average_pool(dynamic_filter(value, logits, None, normalize="softmax", **options), self.stride)


class OffsetEmbeddings(nnx.Module):
    """Learned vectors of offsets in K rows and K columns, for each head: [K, K, heads, channels/heads].

    The first half of a vector depends on the row alone, the second one on the column.
    """

    def __init__(self, kernel_size: int, heads: int, channels: int, *, param_dtype: Any, rngs: nnx.Rngs):
        if channels % (2 * heads):
            raise UserError(f"`heads` must divide {channels=} into even numbers of channels, got {heads}.")
        shape = (kernel_size, heads, channels // heads // 2)
        init = Normal((channels // heads) ** -0.5)
        self.rows, self.columns = (nnx.Param(init(rngs.params(), shape, param_dtype)) for _ in range(2))

    def __call__(self, dtype: Any) -> Array:
        rows, columns = self.rows[...].astype(dtype), self.columns[...].astype(dtype)
        shape = (len(rows), *rows.shape)
        halves = jnp.broadcast_to(rows[:, None], shape), jnp.broadcast_to(columns[None], shape)
        return jnp.concatenate(halves, axis=-1)


class BlockAttention(nnx.Module):
    r"""Attention within blocks of S×S pixels, as the stem: [B, H, W, C] to [B, H, W, out_channels].

    .. math:: y_p = \sum_{p'} \text{softmax}_{p'}(q_p \cdot k_{p'} + q_p \cdot r_{p'-p}) \, v_{p'}, \qquad
        v_{p'} = \sum_m \text{softmax}_m\big((a_{i(p')} + b_{j(p')}) \cdot \nu_m\big) \, V_m x_{p'}

    for every head and the pixels p' of the block of p, in row i(p') and column j(p') of it: the linear map of the
    values depends on the place in the block. Blocks that reach beyond the image have zeros there.

    Args:
        in_channels: C.
        out_channels: as for `SelfAttention`.
        block_size: S.
        stride: averages y over stride×stride pixels.
        heads: as for `SelfAttention`.
        mixtures: number of maps V_m.
        dtype: compute dtype (default: that of x; float32 for integers); logits are in float32.
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the heads do not divide the output channels into even numbers.

    Reference: Ramachandran et al., 2019, Section 3.2. The size of the embeddings a and b, here out_channels, is a
    reading.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: BlockAttention(3, 16, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 15, 20, 3))).shape
    (2, 15, 20, 16)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        block_size: int = 4,
        stride: int = 1,
        heads: int = 8,
        mixtures: int = 4,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.project = PointwiseConv(in_channels, (2 + mixtures) * out_channels, kernel_init=uniform_fan_in, **dtypes)
        self.offsets = OffsetEmbeddings(2 * block_size - 1, heads, out_channels, param_dtype=param_dtype, rngs=rngs)
        init = Normal(out_channels**-0.25)  # the products of two vectors have a deviation of 1
        self.rows, self.columns, self.mixtures = (
            nnx.Param(init(rngs.params(), (count, out_channels), param_dtype))
            for count in (block_size, block_size, mixtures)
        )
        self.block_size, self.stride, self.heads = block_size, stride, heads
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        (height, width), size = x.shape[1:3], self.block_size
        # Written so that symbolic sizes, of a program for any size, are known to be no smaller than those of x.
        missing = ((0, size * ((side - 1) // size + 1) - side) for side in (height, width))
        whole = jnp.pad(x, ((0, 0), *missing, (0, 0)))
        pixels = blocks(self.project(whole), size)  # [B, h, w, S², channels]
        channels = pixels.shape[-1] // (2 + len(self.mixtures[...]))
        query, key, values = jnp.split(pixels, (channels, 2 * channels), axis=-1)
        values = values.reshape(*values.shape[:-1], -1, channels)
        value = jnp.einsum("bhwpmc,pm->bhwpc", values, self._shares(values.dtype))
        attended = self._attend(*(_split(array, self.heads) for array in (query, key, value)))
        y = depth_to_space(attended.reshape(*attended.shape[:3], -1), size)
        inside = jax.lax.slice(y, (0, 0, 0, 0), (y.shape[0], height, width, channels))
        return average_pool(inside, self.stride)

    def _shares(self, dtype: Any) -> Array:
        """The share of each map at each place of a block: [S², mixtures]."""
        places = (self.rows[...][:, None] + self.columns[...][None]).reshape(self.block_size**2, -1)
        return jax.nn.softmax(places @ self.mixtures[...].T, axis=-1).astype(dtype)

    def _attend(self, query: Array, key: Array, value: Array) -> Array:
        """Arrays [B, h, w, S², heads, d] to the shape of each."""
        wide = accumulator_dtype(query)
        row, column = jnp.divmod(jnp.arange(self.block_size**2), self.block_size)
        rows, columns = (places[None] - places[:, None] + self.block_size - 1 for places in (row, column))
        embeddings = self.offsets(query.dtype)[rows, columns]  # [S², S², heads, d], of a query and a key
        product = functools.partial(jnp.einsum, preferred_element_type=wide)
        logits = product("bhwpnd,bhwrnd->bhwnpr", query, key) + product("bhwpnd,prnd->bhwnpr", query, embeddings)
        return jnp.einsum("bhwnpr,bhwrnd->bhwpnd", jax.nn.softmax(logits, axis=-1).astype(value.dtype), value)


def _split(x: Array, heads: int) -> Array:
    """[..., C] to [..., heads, C/heads]."""
    return x.reshape(*x.shape[:-1], heads, -1)
