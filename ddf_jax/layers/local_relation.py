"""The local relation layer of Hu et al., ICCV 2019."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import check_odd
from ddf_jax.layers.convolution import Linear, PointwiseConv
from ddf_jax.layers.initializers import uniform_fan_in
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import accumulator_dtype, dynamic_filter, local_correlation


class LocalRelation(nnx.Module):
    r"""Aggregates the K×K pixels around each by their similarity and offset: [B, H, W, C] to [B, Ho, Wo, C].

    .. math:: y_p = W \sum_t \text{softmax}_t(q_{p,g} \, k_{p+t,g} + \text{prior}_{t,g}) \; x_{p+t}

    with one number q and one number k for each group g of m channels, linear in x, and a prior of the offset, a small
    perceptron. Pixels outside the image have no share of the softmax. Ho = ceil(H/stride), Wo = ceil(W/stride).

    Args:
        in_channels: C. Where m does not divide it, the last group has fewer channels.
        kernel_size: K, odd.
        stride: of the aggregation, as in a convolution.
        group_channels: m.
        hidden: units of the prior's perceptron.
        implementation: of `pallas_kernels.dynamic_filter` and `local_correlation`.
        dtype: compute dtype (default: that of x; float32 for integers); logits are in float32.
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the kernel size is even.

    Reference: Hu et al., "Local Relation Networks for Image Recognition", ICCV 2019, Figure 2. The border is that of
    the kernel in the branch LR-Net of github.com/microsoft/Swin-Transformer. The paper leaves open the prior's units;
    few leave the published parameters.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: LocalRelation(20, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 15, 20, 20))).shape
    (2, 8, 10, 20)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        kernel_size: int = 7,
        stride: int = 1,
        group_channels: int = 8,
        hidden: int = 4,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_odd(kernel_size=kernel_size)
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        groups = -(-in_channels // group_channels)
        # A bias of the key, as one of the prior's last layer, would be the same for all pixels of a window.
        self.query = PointwiseConv(in_channels, groups, stride=stride, kernel_init=uniform_fan_in, **dtypes)
        self.key = PointwiseConv(in_channels, groups, kernel_init=uniform_fan_in, **dtypes)
        self.prior = GeometryPrior(groups, hidden, param_dtype=param_dtype, rngs=rngs)
        self.mix = PointwiseConv(in_channels, in_channels, **dtypes)
        self.kernel_size, self.stride, self.groups = kernel_size, stride, groups
        self.padding = groups * group_channels - in_channels
        self.implementation = implementation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        query, size, stride = self.query(x), self.kernel_size, self.stride
        wide = accumulator_dtype(query)
        options = {"kernel_size": size, "stride": stride, "implementation": self.implementation}
        logits = local_correlation(query.astype(wide), self.key(x), groups=self.groups, **options)
        logits += self.prior(size, wide)[None, None, None]
        rows, columns = (_inside(length, size, stride) for length in x.shape[1:3])
        inside = rows[:, None, :, None] & columns[None, :, None, :]  # [Ho, Wo, K, K]
        logits = jnp.where(inside.reshape(1, *inside.shape[:2], 1, -1), logits, -jnp.inf)
        whole = jnp.pad(x, ((0, 0),) * 3 + ((0, self.padding),))
        y = dynamic_filter(whole, logits, None, normalize="softmax", **options)
        return self.mix(y[..., : self.in_channels])


class GeometryPrior(nnx.Module):
    """Logits of the offsets in a K×K window: [groups, K²]."""

    def __init__(self, groups: int, hidden: int, *, param_dtype: jnp.dtype, rngs: nnx.Rngs):
        self.hidden = Linear(2, hidden, param_dtype=param_dtype, rngs=rngs)
        self.logits = Linear(hidden, groups, use_bias=False, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, kernel_size: int, dtype: jnp.dtype) -> Array:
        steps = jnp.linspace(-1, 1, kernel_size, dtype=dtype)
        offsets = jnp.stack(jnp.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
        return self.logits(jax.nn.relu(self.hidden(offsets))).T.astype(dtype)


def _inside(length: int, kernel_size: int, stride: int) -> Array:
    """Whether each tap of each window along an axis lies in the image: [ceil(length/stride), K]."""
    centres = stride * jnp.arange((length - 1) // stride + 1)
    pixels = centres[:, None] + jnp.arange(-(kernel_size // 2), kernel_size // 2 + 1)[None]
    return (pixels >= 0) & (pixels < length)
