"""Random keys for building a model quickly."""

from typing import Any

import jax
from flax import nnx


class InitialKeys:
    """Stands in for `nnx.Rngs` while a model is built: the n-th key for parameters is ``fold_in(key, n)``.

    Counting in Python, instead of in a traced variable, makes the abstract creation of a deep network linear in its
    depth (under `jax.jit` each update of the variable searches all that was traced before: 30 s for 152 layers).
    Everything but parameters, such as stochastic depth, draws from the `nnx.Rngs` itself, `rngs`.
    """

    def __init__(self, rngs: nnx.Rngs):
        self.rngs = rngs
        self._key = rngs.params()
        self._count = 0

    def params(self) -> Any:
        self._count += 1
        return jax.random.fold_in(self._key, self._count)
