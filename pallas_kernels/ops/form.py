"""The multilinear form whose partial derivatives are the operator and all of its derivatives, of any order.

With "mul" the form is

    T(x, y, spatial, channel) = factor · Σ y[p, c] · spatial[p, g(c), t] · channel[t, c] · x[p + t, c]

over positions p, taps t and channels c, without the filter that is None. It is linear in each of its operands, so the
partial derivative with respect to one operand is a function of the others:

* ∂T/∂y is the dynamic filter of x (and y stands for its cotangent in the others),
* ∂T/∂x, ∂T/∂spatial and ∂T/∂channel are the cotangents of its inputs; without a channel filter, ∂T/∂spatial is the
  local correlation of y and x.

Derivatives of partial derivatives are partial derivatives again, with one operand replaced by its tangent or cotangent.
With "add", T is the sum of a form without channel and one without spatial.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

import jax.numpy as jnp

from pallas_kernels.ops.spec import FilterSpec

Name = str
NAMES: tuple[Name, ...] = ("x", "y", "spatial", "channel")
"""Of the operands."""

FILTERS: dict[Name, Name] = {"spatial": "channel", "channel": "spatial"}
"""Each filter's name, with the other's."""

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Form:
    """Which partial derivatives of the form to compute, from which operands.

    With tangents, each result is the sum, over the tangents, of the partial derivative in which the tangent takes the
    place of its operand: the directional derivative of the results.

    Args:
      spec: the options of the operator.
      size: H and W of x.
      groups: G; 1 where the form has no spatial filter.
      operands: names of the given arrays, in the order of `NAMES`.
      results: the operands with respect to which T is derived, in the order of `NAMES`.
      dtypes: of the results.
      tangents: names of the tangents, in the order of `NAMES`; they follow the operands.
    """

    spec: FilterSpec
    size: tuple[Any, Any]
    groups: int
    operands: tuple[Name, ...]
    results: tuple[Name, ...]
    dtypes: tuple[jnp.dtype, ...]
    tangents: tuple[Name, ...] = ()

    @property
    def arrays(self) -> tuple[Name, ...]:
        """The names of all arrays that an evaluation takes."""
        return self.operands + self.tangents

    def result_shapes(self, batch: Any, channels: int) -> tuple[tuple[Any, ...], ...]:
        """The shapes of the results."""
        spec, (height, width) = self.spec, self.size
        (rows, columns), (height_y, width_y) = spec.grid(self.size), spec.output_size(self.size)
        shapes: dict[Name, tuple[Any, ...]] = {
            "x": (batch, height, width, channels),
            "y": (batch, height_y, width_y, channels),
            "spatial": (batch, rows, columns, spec.scale**2, self.groups, spec.taps),
            "channel": (batch, spec.scale**2, spec.taps, channels),
        }
        return tuple(shapes[name] for name in self.results)

    def depends_on(self, result: Name, present: Collection[Name]) -> tuple[Name, ...]:
        """The operands, among the present ones, that a result is a function of."""
        alone = self.spec.combine == "add" and result in FILTERS
        return tuple(name for name in NAMES if name in present and name != result and not (alone and name in FILTERS))


def in_order(values: Mapping[Name, Value]) -> dict[Name, Value]:
    """The values in the order of `NAMES`."""
    return {name: values[name] for name in NAMES if name in values}


def replaced(form: Form, operands: Mapping[Name, Value], name: Name, value: Value) -> dict[Name, Value]:
    """The operands of the part of T that depends on `name`, with another value for it."""
    others = {other: value for other, value in operands.items() if not _drops(form, name, other)}
    return in_order({**others, name: value})


def _drops(form: Form, name: Name, other: Name) -> bool:
    return form.spec.combine == "add" and FILTERS.get(name) == other


def select(names: Iterable[Name], values: Mapping[Name, Value]) -> dict[Name, Value]:
    """The values of these names, in the order of `NAMES`."""
    chosen = set(names)
    return {name: value for name, value in in_order(values).items() if name in chosen}
