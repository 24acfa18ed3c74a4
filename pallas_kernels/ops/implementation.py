"""What a module defines to implement the operator, and how its functions make any partial derivative."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
from jax import Array

from pallas_kernels.ops.form import Form, Name, in_order, replaced
from pallas_kernels.ops.normalization import push_forward
from pallas_kernels.ops.spec import FilterSpec, accumulator_dtype

Results = Mapping[Name, jax.ShapeDtypeStruct]


class Operands(NamedTuple):
    """The operands of the form that a call gives, on the shapes of `FilterSpec`; None for the others."""

    x: Array | None = None  # [B, H, W, C]
    y: Array | None = None  # [B, S·Ho, S·Wo, C]
    spatial: Array | None = None  # [B, Ho, Wo, S², G, T]
    channel: Array | None = None  # [B, S², T, C]


def cotangents_of(operands: Operands) -> Results:
    """The cotangents of all inputs, in the dtypes of the inputs."""
    inputs: dict[Name, Array | None] = {"x": operands.x, "spatial": operands.spatial, "channel": operands.channel}
    return {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in inputs.items() if a is not None}


class Implementation(Protocol):
    """The functions that a module defines to compute the operator, on the shapes of `FilterSpec`.

    It may also define `attend`, attention in a neighbourhood at once: see `triton.attention` and `fused_attention`.
    """

    def forward(
        self, x: Array, spatial: Array | None, channel: Array | None, spec: FilterSpec, dtype: Any = None
    ) -> Array:
        """Filters x.

        Args:
          x: [B, H, W, C].
          spatial: [B, Ho, Wo, S², G, T], or None.
          channel: [B, S², T, C], or None. At least one filter is given, and the dtypes may differ.
          spec: the options of the operator.
          dtype: of the result; that of x by default.

        Returns:
          y [B, S·Ho, S·Wo, C], with sums in `accumulator_dtype`.
        """
        ...

    def backward(self, operands: Operands, results: Results, spec: FilterSpec) -> dict[Name, Array]:
        """Computes the cotangents of inputs of `forward`.

        Args:
          operands: y is the cotangent of the result; of the others those that the results depend on.
          results: shapes and dtypes of the wanted ones among "x", "spatial" and "channel".
          spec: as in `forward`.

        Returns:
          The cotangents: where the spatial filter is normalised, of the given filter.
        """
        ...


def evaluate(implementation: Implementation, form: Form, *arrays: Array) -> tuple[Array, ...]:
    """The results of the form, from its operands and tangents."""
    operands = dict(zip(form.operands, arrays, strict=False))
    tangents = dict(zip(form.tangents, arrays[len(operands) :], strict=True))
    batch, channels = next((a.shape[0], a.shape[-1]) for n, a in zip(form.arrays, arrays, strict=True) if n in "xy")
    shapes = form.result_shapes(batch, channels)
    results = {
        name: jax.ShapeDtypeStruct(shape, dtype)
        for name, shape, dtype in zip(form.results, shapes, form.dtypes, strict=True)
    }
    if not tangents:
        return tuple(_partials(implementation, operands, results, form.spec).values())
    wide = accumulator_dtype(*arrays)
    sums: dict[Name, Array] = {}
    for name, tangent in tangents.items():
        values, spec = replaced(form, operands, name, tangent), form.spec
        if name == "spatial" and spec.normalize:
            values[name] = push_forward(operands[name].astype(wide), tangent.astype(wide), spec)
            spec = spec.without_normalization()
        wanted = {
            result: jax.ShapeDtypeStruct(struct.shape, wide)
            for result, struct in results.items()
            if name in form.depends_on(result, values)
        }
        for result, term in _partials(implementation, values, wanted, spec).items():
            sums[result] = sums[result] + term if result in sums else term
    return tuple(sums[name].astype(struct.dtype) for name, struct in results.items())


def _partials(
    implementation: Implementation, operands: Mapping[Name, Array], results: Results, spec: FilterSpec
) -> dict[Name, Array]:
    given = Operands(**operands)
    found: dict[Name, Array] = {}
    if "y" in results:
        assert given.x is not None
        found["y"] = implementation.forward(given.x, given.spatial, given.channel, spec, results["y"].dtype)
    if others := {name: struct for name, struct in results.items() if name != "y"}:
        found |= implementation.backward(given, others, spec)
    return in_order(found)
