"""The normalisations of spatial filters over their taps, and their derivatives, in plain JAX.

All arrays are in the dtype of sums. `triton/normalization.py` has the kernels.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels.ops.spec import FilterSpec


def normalized(filters: Array, spec: FilterSpec) -> Array:
    r"""The filters [..., T] that are used for the given ones.

    "softmax" is that of the taps; "filter_norm" is

    .. math:: \frac{\mathrm{gain}}{\sqrt T} \, \frac{f - \mu(f)}{\delta(f) + 10^{-10}}

    with the unbiased deviation δ, whose derivative is 0 where all taps are equal.
    """
    if spec.normalize is None:
        return filters
    shift, factor = (value[..., None] for value in statistics(filters, spec))
    shifted = filters - shift
    return (jnp.exp(shifted) if spec.normalize == "softmax" else shifted) * factor


def statistics(filters: Array, spec: FilterSpec) -> tuple[Array, Array]:
    """[...], twice: what is subtracted from the filters [..., T], and what the difference, or its exponential under
    "softmax", is multiplied by."""
    if spec.normalize == "softmax":
        largest = lax.stop_gradient(filters.max(-1))  # it does not change the result
        return largest, 1 / jnp.exp(filters - largest[..., None]).sum(-1)
    mean = filters.mean(-1)
    centred = filters - mean[..., None]
    return mean, spec.filter_norm_factor(square_root((centred * centred).sum(-1) / (spec.taps - 1)))


def push_forward(filters: Array, tangent: Array, spec: FilterSpec) -> Array:
    """The tangent of the normalised filters, of the given ones' tangent."""
    return jax.jvp(lambda filters: normalized(filters, spec), (filters,), (tangent,))[1]


def pull_back(filters: Array, cotangent: Array, spec: FilterSpec) -> Array:
    """The cotangent of the given filters, of the normalised ones' cotangent."""
    return jax.vjp(lambda filters: normalized(filters, spec), filters)[1](cotangent)[0]


@jax.custom_jvp
def square_root(x: Array) -> Array:
    """`jnp.sqrt(x)` with a derivative of 0 where x is 0, as that of torch's `std`; elsewhere 1/(2·√x).

    The derivative of `jnp.sqrt` is infinite there, and its product with the 0 of an inner derivative is NaN.

    >>> import jax
    >>> [float(jax.grad(lambda x: square_root(x * x))(x)) for x in (0.0, 3.0)]
    [0.0, 1.0]
    """
    return jnp.sqrt(x)


@square_root.defjvp
def _derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = square_root(*primals)
    return y, tangents[0] * (0.5 / jnp.where(y == 0, jnp.inf, y))
