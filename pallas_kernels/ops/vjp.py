"""Residuals, gradients and the `custom_vjp` through which every implementation is wired."""

import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
from jax import Array

from pallas_kernels import compat
from pallas_kernels.ops import partition
from pallas_kernels.ops.spec import FilterSpec


class Residuals(NamedTuple):
    """What the backward pass needs: the inputs and nothing else."""

    x: Array  # [B, H, W, C]
    spatial: Array | None  # [B, Ho, Wo, S², G, T]
    channel: Array | None  # [B, S², T, C]


class Gradients(NamedTuple):
    """Cotangents of the inputs: each of its input's shape and dtype, None where the input is None."""

    x: Array
    spatial: Array | None
    channel: Array | None


class Implementation(Protocol):
    """What a module must define to compute the operator, on the shapes of `FilterSpec`."""

    def forward(self, x: Array, spatial: Array | None, channel: Array | None, spec: FilterSpec) -> Array: ...

    def backward(self, residuals: Residuals, dy: Array, spec: FilterSpec) -> Gradients: ...


def apply(
    x: Array, spatial: Array | None, channel: Array | None, *, implementation: Implementation, spec: FilterSpec
) -> Array:
    """`implementation.forward`, split over the mesh, with `implementation.backward` as its derivative."""
    # Inside `jax.shard_map` this hands the sum over shared inputs to the transpose of the cast.
    inputs = (compat.varying_like(array, x, spatial, channel) for array in (x, spatial, channel) if array is not None)
    names = "".join(n for n, array in zip("xsc", (x, spatial, channel), strict=True) if array is not None)
    return _differentiable(implementation, spec, names, *inputs)


# The partitioning wrapper lies within: outside, its transposition would add collectives to the backward pass.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _differentiable(implementation: Implementation, spec: FilterSpec, names: str, *inputs: Array) -> Array:
    (y,) = partition.split(_forward, (implementation, spec, names), names, "x")(*inputs)
    return y


def _save_inputs(implementation: Implementation, spec: FilterSpec, names: str, *inputs: Array):
    return _differentiable(implementation, spec, names, *inputs), inputs


def _pull_back(implementation: Implementation, spec: FilterSpec, names: str, inputs: Sequence[Array], dy: Array):
    gradients = partition.split(_backward, (implementation, spec, names), names + "x", names)(*inputs, dy)
    return tuple(map(partition.placed_like, gradients, inputs))


_differentiable.defvjp(_save_inputs, _pull_back)


def _forward(implementation: Implementation, spec: FilterSpec, names: str, *inputs: Array) -> tuple[Array]:
    return (implementation.forward(*_residuals(names, inputs), spec),)


def _backward(implementation: Implementation, spec: FilterSpec, names: str, *arrays: Array) -> tuple[Array, ...]:
    gradients = implementation.backward(_residuals(names, arrays[:-1]), arrays[-1], spec)
    return tuple(gradient for gradient in gradients if gradient is not None)


def _residuals(names: str, inputs: Sequence[Array]) -> Residuals:
    present = dict(zip(names, inputs, strict=True))
    return Residuals(present["x"], present.get("s"), present.get("c"))
