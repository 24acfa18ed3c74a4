"""The dynamic convolution of Zhang et al., "DyNet", 2020."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import check_feature_map, check_odd, global_average, per_sample_conv
from ddf_jax.layers.convolution import Linear
from ddf_jax.layers.initializers import Initializer, normal_fan_out, stacked
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers


class DyNetConv(nnx.Module):
    r"""A convolution each of whose output channels mixes kernels of its own: to [B, Ho, Wo, out_channels].

    .. math:: y_o = \Big(\sum_i \eta_{o,i} W_{o,i}\Big) * x

    Ho = ceil(H/stride), Wo = ceil(W/stride). The coefficients η come from a `CoefficientPrediction`, which the
    convolutions of a block share. The kernel is mixed once for a sample, so several kernels cost one convolution.

    Args:
        in_channels: C of x [B, H, W, C].
        out_channels: of the convolution.
        kernel_size: K, odd.
        stride: of the convolution.
        kernels: of each output channel.
        kernel_init: initialiser of the kernels.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the kernel size is even.

    Reference: Zhang et al., "DyNet: Dynamic Convolution for Accelerating Convolutional Neural Networks", 2020.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x, eta: DyNetConv(8, 12, stride=2, rngs=nnx.Rngs(0))(x, eta)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 8)), jnp.ones((2, 6, 12))).shape
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
        kernels: int = 6,
        kernel_init: Initializer = normal_fan_out,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_odd(kernel_size=kernel_size)
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.kernels = nnx.Param(stacked(kernel_init, rngs.params(), kernels, shape, param_dtype))
        self.stride = stride
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array, coefficients: Array) -> Array:
        """Convolves x [B, H, W, C] with kernels mixed by the coefficients [B, kernels, out_channels].

        Raises:
            UserError: they do not have these shapes.
        """
        x = as_feature_map(x, self.in_channels, self.dtype)
        expected = (x.shape[0], self.kernels.shape[0], self.kernels.shape[-1])
        if coefficients.shape != expected:
            raise UserError(
                f"`coefficients` must be [B, kernels, out_channels] = {expected}, got {coefficients.shape}: those of a "
                "`CoefficientPrediction` with as many kernels and this convolution's channels."
            )
        kernels = jnp.einsum("bno,nijco->bijco", coefficients, self.kernels[...].astype(x.dtype))
        return per_sample_conv(x, kernels, stride=self.stride)


class CoefficientPrediction(nnx.Module):
    """The coefficients of the convolutions of a block, from its input [B, H, W, C]: [B, kernels, O] for each.

    Args:
        in_channels: C; the hidden layer, which is linear, has C/4 units.
        out_channels: O of each convolution.
        kernels: of each output channel.
        dtypes: as of the other layers.

    Reference: as for `DyNetConv`.
    """

    def __init__(self, in_channels: int, out_channels: tuple[int, ...], *, kernels: int = 6, **dtypes: Any):
        hidden = max(in_channels // 4, 1)
        self.squeeze = Linear(in_channels, hidden, **dtypes)
        self.excite = Linear(hidden, kernels * sum(out_channels), **dtypes)
        self.in_channels = in_channels
        self.kernels = kernels
        self.ends = tuple(sum(out_channels[: i + 1]) for i in range(len(out_channels) - 1))

    def __call__(self, x: Array) -> list[Array]:
        check_feature_map(x, self.in_channels)
        logits = self.excite(self.squeeze(global_average(x)))
        coefficients = jax.nn.sigmoid(logits).reshape(x.shape[0], self.kernels, -1)
        return jnp.split(coefficients, self.ends, axis=-1)
