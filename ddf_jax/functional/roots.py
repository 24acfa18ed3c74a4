"""Square roots that can be differentiated at zero."""

import jax
import jax.numpy as jnp
from jax import Array


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
