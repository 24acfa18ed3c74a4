"""Layer normalisation."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import check_channels
from ddf_jax.layers.inputs import compute_dtype
from ddf_jax.layers.options import python_numbers
from pallas_kernels import accumulator_dtype


class LayerNorm(nnx.Module):
    r"""Normalises the channels of every pixel: [..., C] to the same shape.

    .. math:: y = \frac{x - \text{mean}(x)}{\sqrt{\text{var}(x) + \epsilon}} \cdot \text{scale} + \text{bias}

    with mean and biased variance over the channels, computed in float32 (float64 for float64), and torch's ε of 1e-5.

    Args:
        channels: C.
        epsilon: ε.
        dtype: of the result (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: not used; nothing is random.

    Reference: Ba et al., "Layer Normalization", 2016.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> norm = LayerNorm(2, rngs=nnx.Rngs(0))
    >>> [round(float(value), 3) for value in norm(jnp.array([[1.0, 3.0]]))[0]]
    [-1.0, 1.0]
    """

    @python_numbers
    def __init__(
        self,
        channels: int,
        *,
        epsilon: float = 1e-5,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del rngs
        self.scale = nnx.Param(jnp.ones(channels, param_dtype))
        self.bias = nnx.Param(jnp.zeros(channels, param_dtype))
        self.channels, self.epsilon, self.dtype = channels, epsilon, dtype

    def __call__(self, x: Array) -> Array:
        check_channels(x, self.channels)
        wide = x.astype(accumulator_dtype(x))
        centred = wide - wide.mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        scale, bias = (
            value[...].astype(y.dtype).reshape(*(1,) * (x.ndim - 1), -1) for value in (self.scale, self.bias)
        )
        return (y * scale + bias).astype(compute_dtype(x, self.dtype))
