"""Squeeze and excitation of Hu et al., CVPR 2018."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import global_average
from ddf_jax.layers.convolution import Linear
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers


class SqueezeExcitation(nnx.Module):
    r"""Weights the channels by their global averages: [B, H, W, C] to the same shape.

    .. math:: y = x \cdot \text{sigmoid}(W_2 \, \text{relu}(W_1 \, \text{average}(x) + b_1) + b_2)

    Args:
        channels: C.
        reduction: ratio of C to the hidden units.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the reduction leaves no unit.

    Reference: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: SqueezeExcitation(32, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 32))).shape
    (2, 5, 4, 32)
    """

    @python_numbers
    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        if channels < reduction:
            raise UserError(f"`reduction` must leave at least one unit of {channels=}, got {reduction}.")
        self.squeeze = Linear(channels, channels // reduction, **dtypes)
        self.excite = Linear(channels // reduction, channels, **dtypes)
        self.channels = channels
        self.dtype = dtype

    def logits(self, vectors: Array) -> Array:
        """The two layers alone: [B, C] to [B, C]."""
        return self.excite(jax.nn.relu(self.squeeze(vectors)))

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.channels, self.dtype)
        return x * jax.nn.sigmoid(self.logits(global_average(x)))[:, None, None]
