"""Random keys that make the creation of a model fast."""

from typing import Any

import jax
from flax import nnx


class InitialKeys:
    """Replaces `nnx.Rngs` during the creation of a model: the n-th key for parameters is ``fold_in(key, n)``.

    A counter in Python, instead of a traced variable, makes the abstract creation of a network linear in its depth.
    (Under `jax.jit` each update of the variable searches the whole trace: 30 s for 152 layers.) Everything except
    parameters, such as stochastic depth, draws from the `nnx.Rngs` itself, `rngs`.
    """

    def __init__(self, rngs: nnx.Rngs):
        self.rngs = rngs
        self._key = rngs.params()
        self._count = 0

    def params(self) -> Any:
        self._count += 1
        return jax.random.fold_in(self._key, self._count)
