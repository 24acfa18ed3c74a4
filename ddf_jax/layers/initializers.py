"""Initialisers as values: they compare by their options, and configurations that hold them can be pickled."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

Initializer = Callable[..., Array]
"""`initializer(key, shape, dtype)` gives an array."""


@dataclasses.dataclass(frozen=True)
class VarianceScaling:
    """`jax.nn.initializers.variance_scaling` as a value."""

    scale: float
    mode: Literal["fan_in", "fan_out", "fan_avg"]
    distribution: Literal["uniform", "normal", "truncated_normal"]

    def __call__(self, key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
        initializer = jax.nn.initializers.variance_scaling(self.scale, self.mode, self.distribution)
        return initializer(key, shape, dtype)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Uniform in ±bound."""

    bound: float

    def __call__(self, key: Array, shape: Any, dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -self.bound, self.bound)


# The weights of torch.nn.Conv2d and torch.nn.Linear: uniform in ±1/√fan_in.
uniform_fan_in: Initializer = VarianceScaling(1 / 3, "fan_in", "uniform")
# The weights of ResNets: normal with variance 2/fan_out (He et al., 2015).
normal_fan_out: Initializer = VarianceScaling(2.0, "fan_out", "normal")
# Normal with variance 2/fan_in (He et al., 2015).
normal_fan_in: Initializer = VarianceScaling(2.0, "fan_in", "normal")


def uniform_bias(fan_in: int) -> Initializer:
    """torch's initialiser of biases: uniform in ±1/√fan_in."""
    return Uniform(fan_in**-0.5)
