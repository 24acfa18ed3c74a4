"""The `custom_vjp` of every implementation, with its residuals and cotangents."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
from jax import Array
from jax.extend.core import JaxprEqn, jaxprs_in_params

from pallas_kernels import compat
from pallas_kernels.ops import partition
from pallas_kernels.ops.partition import Names
from pallas_kernels.ops.spec import FilterSpec


class Residuals(NamedTuple):
    """The residuals of the backward pass: the inputs, and nothing else."""

    x: Array  # [B, H, W, C]
    spatial: Array | None  # [B, Ho, Wo, S², G, T]
    channel: Array | None  # [B, S², T, C]


class Cotangents(NamedTuple):
    """The cotangents of the inputs. Each has its input's shape and dtype; None for an input of None."""

    x: Array
    spatial: Array | None
    channel: Array | None


class Implementation(Protocol):
    """The functions that a module defines to compute the operator, on the shapes of `FilterSpec`."""

    def forward(self, x: Array, spatial: Array | None, channel: Array | None, spec: FilterSpec) -> Array:
        """Filters x.

        Args:
          x: [B, H, W, C].
          spatial: [B, Ho, Wo, S², G, T], or None.
          channel: [B, S², T, C], or None. At least one filter is given, and the dtypes may differ.
          spec: the options of the operator.

        Returns:
          y [B, S·Ho, S·Wo, C] in the dtype of x, with sums in `accumulator_dtype`.
        """
        ...

    def backward(self, residuals: Residuals, dy: Array, spec: FilterSpec) -> Cotangents:
        """Pulls a cotangent back to the inputs.

        Args:
          residuals: the inputs of `forward`.
          dy: the cotangent of y, with its shape and dtype.
          spec: as in `forward`.

        Returns:
          The cotangents, each in the shape and dtype of its input, and None for an input of None.
        """
        ...


def apply(
    x: Array, spatial: Array | None, channel: Array | None, *, implementation: Implementation, spec: FilterSpec
) -> Array:
    """`implementation.forward`, partitioned over the mesh, with `implementation.backward` as its VJP."""
    named: list[tuple[partition.Name, Array | None]] = [("x", x), ("spatial", spatial), ("channel", channel)]
    present = [(name, array) for name, array in named if array is not None]
    # Inside `jax.shard_map` the transpose of this cast sums the cotangents of inputs that devices share.
    inputs = (compat.varying_like(array, x, spatial, channel) for _, array in present)
    return _differentiable(implementation, spec, tuple(name for name, _ in present), *inputs)


def dynamic_filter_taps(equation: JaxprEqn) -> int | None:
    """T of the dynamic filter that an equation of a traced program is, or None for any other equation.

    It serves programs that count or rewrite operations. The first operand of such an equation is x.
    """
    if equation.primitive.name != "custom_vjp_call":
        return None
    program = next(iter(jaxprs_in_params(equation.params)))
    if program.debug_info.func_filename != apply.__code__.co_filename:  # the name of a function is not kept
        return None
    a_filter: Any = equation.invars[1].aval
    return a_filter.shape[-1] if a_filter.ndim == 6 else a_filter.shape[-2]


# The partitioning wrapper is inside: outside, its transpose would add collectives to the backward pass.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _differentiable(implementation: Implementation, spec: FilterSpec, names: Names, *inputs: Array) -> Array:
    (y,) = partition.split(_forward, (implementation, spec, names), names, ("x",))(*inputs)
    return y


def _save_inputs(implementation: Implementation, spec: FilterSpec, names: Names, *inputs: Array):
    return _differentiable(implementation, spec, names, *inputs), inputs


def _pull_back(implementation: Implementation, spec: FilterSpec, names: Names, inputs: Sequence[Array], dy: Array):
    backward = partition.split(_backward, (implementation, spec, names), (*names, "x"), names)
    return tuple(map(partition.reshard_like, backward(*inputs, dy), inputs))


_differentiable.defvjp(_save_inputs, _pull_back)


def _forward(implementation: Implementation, spec: FilterSpec, names: Names, *inputs: Array) -> tuple[Array]:
    return (implementation.forward(*_residuals(names, inputs), spec),)


def _backward(implementation: Implementation, spec: FilterSpec, names: Names, *arrays: Array) -> tuple[Array, ...]:
    cotangents = implementation.backward(_residuals(names, arrays[:-1]), arrays[-1], spec)
    return tuple(cotangent for cotangent in cotangents if cotangent is not None)


def _residuals(names: Names, inputs: Sequence[Array]) -> Residuals:
    present = dict(zip(names, inputs, strict=True))
    return Residuals(present["x"], present.get("spatial"), present.get("channel"))
