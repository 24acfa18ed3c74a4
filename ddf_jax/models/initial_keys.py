"""Random keys that make the creation of a model fast."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

_AT_ONCE = 64


class InitialKeys:
    """Replaces `nnx.Rngs` during the creation of a model: the n-th key for parameters is ``fold_in(key, n)``.

    A counter in Python, instead of a traced variable, makes the abstract creation of a network linear in its depth.
    (Under `jax.jit` each update of the variable searches the whole trace: 30 s for 152 layers.) Everything except
    parameters, such as stochastic depth, draws from the `nnx.Rngs` itself, `rngs`.
    """

    def __init__(self, rngs: nnx.Rngs):
        self.rngs = rngs
        self._key = rngs.params()
        self._keys: Iterator[Any] = iter(())
        self._count = 0

    def params(self) -> Any:
        key = next(self._keys, None)
        if key is None:  # many at once: each alone is a hundred operations of a program that compiles
            numbers = jnp.arange(self._count + 1, self._count + 1 + _AT_ONCE, dtype=jnp.uint32)
            self._keys = iter(jax.vmap(jax.random.fold_in, (None, 0))(self._key, numbers))
            key = next(self._keys)
            self._count += _AT_ONCE
        return key
