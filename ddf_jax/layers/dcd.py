"""Dynamic convolution by matrix decomposition of Li et al., ICLR 2021."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import check_vectors, global_average
from ddf_jax.layers.batch_norm import BatchNorm
from ddf_jax.layers.convolution import Conv, Linear, PointwiseConv
from ddf_jax.layers.inputs import as_feature_map, compute_dtype
from ddf_jax.layers.options import python_numbers


class DCD(nnx.Module):
    r"""A convolution with a low-rank part of each sample's own: [B, H, W, C] to [B, Ho, Wo, out_channels].

    .. math:: y = h(W_s z) \odot (w * x) + P (\text{norm}_2(\Phi q) + q), \qquad q = \text{norm}_1(Q x)

    Φ is a d×d matrix of each sample, from the same vector z as the scale: ``z = u · h(W u)``, ``u = W₀ · average(x)``.
    h(x) = relu6(x + 3) / 3 lies between 0 and 2. No layer has a bias. Q has the stride of the convolution;
    Ho = ceil(H/stride), Wo = ceil(W/stride).

    Args:
        in_channels: C; d = ⌊√C⌋, and z has max(C, d²) / 16 values.
        out_channels: of the convolution.
        kernel_size: K, odd.
        stride: of the convolution.
        dilation: of the convolution.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the kernel size is even.

    Reference: Li et al., "Revisiting Dynamic Convolution via Matrix Decomposition", ICLR 2021; sizes as in its code.
    The convolution is MDDC in tables of later papers.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: DCD(16, 12, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 16))).shape
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
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        rank = math.isqrt(in_channels)
        hidden = max(in_channels // 16, 1)
        if kernel_size == 1:
            self.conv = PointwiseConv(in_channels, out_channels, stride=stride, **dtypes)
        else:
            self.conv = Conv(
                in_channels, out_channels, kernel_size=kernel_size, stride=stride, dilation=dilation, **dtypes
            )
        self.project = PointwiseConv(in_channels, rank, stride=stride, **dtypes)
        self.norm1 = BatchNorm(rank, **dtypes)
        self.norm2 = BatchNorm(rank, **dtypes)
        self.restore = PointwiseConv(rank, out_channels, **dtypes)
        self.coefficients = Coefficients(in_channels, out_channels, rank=rank, hidden=hidden, **dtypes)
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        scale, matrix = self.coefficients(global_average(x))
        q = self.norm1(self.project(x))
        q = self.norm2(jnp.einsum("bhwd,bed->bhwe", q, matrix)) + q
        return self.conv(x) * scale[:, None, None] + self.restore(q)


class DCDLinear(nnx.Module):
    """`DCD` as the classifier of a network: [B, C] to [B, out_channels].

    Args:
        in_channels: C.
        out_channels: of the layer.
        rank: d; z has as many values.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: x is not [B, C].

    Reference: as for `DCD`; sizes as in its code.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: DCDLinear(8, 12, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 8))).shape
    (2, 12)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        rank: int = 32,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.static = Linear(in_channels, out_channels, **dtypes)
        self.project = Linear(in_channels, rank, use_bias=False, **dtypes)
        self.norm1 = BatchNorm(rank, **dtypes)
        self.norm2 = BatchNorm(rank, **dtypes)
        self.restore = Linear(rank, out_channels, use_bias=False, **dtypes)
        self.coefficients = Coefficients(in_channels, out_channels, rank=rank, hidden=rank, **dtypes)
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        check_vectors(x, self.in_channels)
        x = jnp.asarray(x, compute_dtype(x, self.dtype))
        scale, matrix = self.coefficients(x)
        q = self.norm1(self.project(x))
        q = self.norm2(jnp.einsum("bd,bed->be", q, matrix)) + q
        return self.static(x) * scale + self.restore(q)


class Coefficients(nnx.Module):
    """The scale [B, out_channels] and the matrix Φ [B, d, d] of a sample, from a vector [B, C]."""

    def __init__(self, in_channels: int, out_channels: int, *, rank: int, hidden: int, **dtypes: Any):
        without_bias: dict[str, Any] = {"use_bias": False, **dtypes}
        self.squeeze = Linear(in_channels, hidden, **without_bias)
        self.gate = Linear(hidden, hidden, **without_bias)
        self.scale = Linear(hidden, out_channels, **without_bias)
        self.matrix = Linear(hidden, rank**2, **without_bias)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        u = self.squeeze(x)
        z = u * _gate(self.gate(u))
        matrix = self.matrix(z)
        rank = math.isqrt(matrix.shape[-1])
        return _gate(self.scale(z)), matrix.reshape(-1, rank, rank)


def _gate(x: Array) -> Array:
    return jax.nn.relu6(x + 3) / 3
