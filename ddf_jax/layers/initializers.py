"""Initialisers as values: they compare by their options, and configurations that hold them can be pickled.

A program that draws random numbers takes half a second to compile, for every shape of a network. These draw a power of
four numbers and keep the first: the same values from a handful of programs, which halves the time that a first model
takes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

Initializer = Callable[..., Array]
"""`initializer(key, shape, dtype)` gives an array."""


@dataclasses.dataclass(frozen=True)
class VarianceScaling:
    """Mean 0 and variance ``scale / fan``, normal or uniform: the values of `jax.nn.initializers.variance_scaling`."""

    scale: float
    mode: Literal["fan_in", "fan_out"]
    distribution: Literal["uniform", "normal"]

    def __call__(self, key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        *window, in_channels, out_channels = shape
        fan = math.prod(window) * (in_channels if self.mode == "fan_in" else out_channels)
        variance = jnp.array(self.scale / fan, dtype)
        if self.distribution == "normal":
            return _first(jax.random.normal(key, _enough(shape), dtype) * jnp.sqrt(variance), tuple(shape))
        return _first(jax.random.uniform(key, _enough(shape), dtype, -1.0) * jnp.sqrt(3 * variance), tuple(shape))


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Uniform in ±bound."""

    bound: float

    def __call__(self, key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return _first(jax.random.uniform(key, _enough(shape), dtype, -self.bound, self.bound), tuple(shape))


@dataclasses.dataclass(frozen=True)
class Normal:
    """Normal with mean 0."""

    deviation: float

    def __call__(self, key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return _first(jax.random.normal(key, _enough(shape), dtype) * self.deviation, tuple(shape))


def _enough(shape: Sequence[int]) -> tuple[int]:
    """The shape of a power of four numbers, at least as many as an array of `shape` has."""
    bits = (math.prod(shape) - 1).bit_length()
    return (4 ** ((bits + 1) // 2),)


@functools.partial(jax.jit, static_argnums=1)
def _first(numbers: Array, shape: tuple[int, ...]) -> Array:
    """The first of the numbers. JAX's generator gives number i the same bits however many are drawn."""
    return jax.lax.slice(numbers, (0,), (math.prod(shape),)).reshape(shape)


# The weights of torch.nn.Conv2d and torch.nn.Linear: uniform in ±1/√fan_in.
uniform_fan_in: Initializer = VarianceScaling(1 / 3, "fan_in", "uniform")
# The weights of ResNets: normal with variance 2/fan_out (He et al., 2015).
normal_fan_out: Initializer = VarianceScaling(2.0, "fan_out", "normal")
# Normal with variance 2/fan_in (He et al., 2015).
normal_fan_in: Initializer = VarianceScaling(2.0, "fan_in", "normal")


def uniform_bias(fan_in: int) -> Initializer:
    """torch's initialiser of biases: uniform in ±1/√fan_in."""
    return Uniform(fan_in**-0.5)


def stacked(init: Initializer, key: Array, count: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """Kernels that are initialised each by itself: [count, *shape]."""
    return jax.vmap(lambda key: init(key, shape, dtype))(jax.random.split(key, count))
