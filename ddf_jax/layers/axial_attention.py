"""Position-sensitive axial attention of Wang et al., ECCV 2020."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import average_pool, check_odd
from ddf_jax.layers.batch_norm import BatchNorm
from ddf_jax.layers.convolution import PointwiseConv
from ddf_jax.layers.initializers import Normal
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import accumulator_dtype, dynamic_filter, local_correlation


class AxialAttention(nnx.Module):
    r"""Attention along the columns or the rows of a map: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].

    .. math:: y_i = \text{norm}\Big(\sum_j w_{i,j} v_j\Big) + \text{norm}\Big(\sum_j w_{i,j} r^v_{i-j}\Big), \qquad
        w_{i,j} = \text{softmax}_j\big(\text{norm}(q_i \cdot k_j) + \text{norm}(q_i \cdot r^q_{i-j}) +
        \text{norm}(k_j \cdot r^k_{j-i})\big)

    for every head of C/heads channels, with half as many of queries and keys. Queries, keys and values are one 1×1
    convolution and normalisation; the embeddings r of relative positions are the same for all heads; logits are
    normalised for each head and term. A stride averages the result over stride×stride pixels.

    Args:
        channels: C, a multiple of twice the heads.
        length: M; embeddings exist for relative positions of -M + 1 to M - 1, farther ones share the last.
        axis: "height" attends to the pixels of the same column, "width" to those of the same row.
        stride: of the result.
        heads: of the attention.
        span: attends to so many pixels around the query alone, an odd number, by the fused kernels; outside the map
            keys and values are 0. Embeddings then exist for these positions, whatever the length.
        implementation: of `pallas_kernels.dynamic_filter`, with a span.
        dtype: compute dtype (default: that of x; float32 for integers). Logits are float32, or float64.
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the heads do not divide C/2, the span is even, the axis is unknown, or there is an implementation
            without a span.

    Reference: Wang et al., "Axial-DeepLab: Stand-Alone Axial-Attention for Panoptic Segmentation", ECCV 2020.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: AxialAttention(32, length=5, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 32))).shape
    (2, 3, 2, 32)
    """

    @python_numbers
    def __init__(
        self,
        channels: int,
        *,
        length: int = 56,
        axis: str = "height",
        stride: int = 1,
        heads: int = 8,
        span: int | None = None,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if channels % (2 * heads):
            raise UserError(f"`heads` must divide half of {channels=}, got {heads}.")
        if span is not None:
            check_odd(span=span)
        elif implementation is not None:
            raise UserError(f"`implementation` must be None without a `span`, got {implementation!r}.")
        if axis not in ("height", "width"):
            raise UserError(f"`axis` must be height or width, got {axis!r}.")
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        depth = channels // heads
        positions = 2 * length - 1 if span is None else span
        self.project = PointwiseConv(channels, 2 * channels, kernel_init=Normal(channels**-0.5), **dtypes)
        self.project_norm = BatchNorm(2 * channels, **dtypes)
        self.relative = nnx.Param(Normal(depth**-0.5)(rngs.params(), (positions, 2 * depth), param_dtype))
        self.logits_norm = BatchNorm(3 * heads, **dtypes)
        self.output_norm = BatchNorm(2 * channels, **dtypes)
        self.splits = (depth // 2, depth)  # queries, keys, values
        self.axis = axis
        self.stride = stride
        self.heads = heads
        self.span = span
        self.implementation = implementation
        self.channels = channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.channels, self.dtype)
        if self.axis == "height":
            x = x.swapaxes(1, 2)
        projected = self.project_norm(self.project(x)).reshape(*x.shape[:3], self.heads, -1)
        query, key, value = jnp.split(projected, self.splits, axis=-1)
        relative = self.relative[...].astype(x.dtype)
        attended = (self._global if self.span is None else self._local)(query, key, value, relative)
        # The two terms of a channel are neighbours.
        pairs = jnp.stack(attended, axis=-1).reshape(*x.shape[:3], -1)
        y = self.output_norm(pairs).reshape(*x.shape, 2).sum(-1)
        return average_pool(y.swapaxes(1, 2) if self.axis == "height" else y, self.stride)

    def _global(self, query: Array, key: Array, value: Array, relative: Array) -> tuple[Array, Array]:
        """The two sums over all pixels of a row, [B, H, W, heads, depth] each."""
        places, farthest = jnp.arange(query.shape[2]), relative.shape[0] // 2
        distance = jnp.clip(places[:, None] - places[None], -farthest, farthest) + farthest
        of_query, of_key, of_value = jnp.split(relative[distance], self.splits, axis=-1)  # [i, j, depth]
        logits = (
            jnp.einsum("bhind,bhjnd->bhijn", query, key),
            jnp.einsum("bhind,ijd->bhijn", query, of_query),
            jnp.einsum("bhjnd,jid->bhijn", key, of_key),
        )
        weights = self._weights(logits, axis=-2)
        return (
            jnp.einsum("bhijn,bhjnd->bhind", weights, value),
            jnp.einsum("bhijn,ijd->bhind", weights, of_value),
        )

    def _local(self, query: Array, key: Array, value: Array, relative: Array) -> tuple[Array, Array]:
        """The two sums over the `span` pixels around each."""
        options = {"kernel_size": (1, self.span), "implementation": self.implementation}
        of_query, of_key, of_value = jnp.split(relative, self.splits, axis=-1)  # [distance, depth]
        flat = [part.reshape(*part.shape[:3], -1) for part in (query, key, value)]
        # Tap t is the pixel j = i + t - centre: i - j grows while t falls.
        logits = (
            local_correlation(flat[0], flat[1], groups=self.heads, **options).swapaxes(-1, -2),
            jnp.einsum("bhind,td->bhitn", query, of_query[::-1]),
            _taps(jnp.einsum("bhjnd,td->bhjtn", key, of_key)),
        )
        weights = self._weights(logits, axis=-2).swapaxes(-1, -2)
        attended = dynamic_filter(flat[2], weights, None, **options).reshape(value.shape)
        return attended, jnp.einsum("bhint,td->bhind", weights, of_value[::-1])

    def _weights(self, logits: tuple[Array, ...], axis: int) -> Array:
        """Normalises the three terms [..., heads], and their sum over an axis."""
        normed = self.logits_norm(jnp.concatenate(logits, axis=-1))
        wide = normed.astype(accumulator_dtype(normed)).reshape(*normed.shape[:-1], 3, self.heads).sum(-2)
        return jax.nn.softmax(wide, axis=axis).astype(normed.dtype)


def _taps(values: Array) -> Array:
    """For each pixel i and tap t the value of pixel i + t - centre for that tap: [B, H, W, T, heads]."""
    length, taps = values.shape[2:4]
    half = taps // 2
    padded = jnp.pad(values, ((0, 0), (0, 0), (half, half), (0, 0), (0, 0)))
    return jnp.stack([padded[:, :, t : t + length, t] for t in range(taps)], axis=3)
