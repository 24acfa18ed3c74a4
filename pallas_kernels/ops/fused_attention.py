"""Attention in a neighbourhood as a JAX primitive: one kernel where the chosen implementation has one.

The outer primitive has the derivatives, which are those of the composition, and holds the composition as a program.
Where it is lowered for a platform whose implementation computes attention at once (`attend`), the whole is partitioned
over the mesh as a dynamic filter is; elsewhere the program is lowered.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from pallas_kernels import compat
from pallas_kernels.ops.choice import Preference, choose
from pallas_kernels.ops.device import device_of_array
from pallas_kernels.ops.form import Form, Name
from pallas_kernels.ops.lowering import device_of, lower_on_device
from pallas_kernels.ops.neighborhood import AttentionSpec, compose
from pallas_kernels.ops.operand_specs import Layout, OperandSpecs
from pallas_kernels.ops.partition import over_mesh
from pallas_kernels.ops.primitive import apply, evaluate_on_device
from pallas_kernels.ops.shards import form_on_shards
from pallas_kernels.ops.spec import FilterSpec

attention_p = Primitive("neighborhood_attention")
_device_attention_p = Primitive("neighborhood_attention_on_device")

NAMES: tuple[Name, ...] = ("v", "q", "k", "bias")
"""Of the arrays; the bias may be missing."""


@dataclasses.dataclass(frozen=True)
class _Call:
    """All but the arrays."""

    spec: AttentionSpec
    num_heads: int
    preference: Preference
    mapped: int

    def composed(self, *arrays: Array) -> Array:
        """By members of the operator's family, each partitioned over the mesh."""
        options: Any = {"size": arrays[0].shape[-3:-1], "groups": self.num_heads, "preference": self.preference}

        def evaluate(results: Mapping[Name, Any], operands: Mapping[Name, Array], spec: FilterSpec):
            return apply(results, operands, spec=spec, mapped=self.mapped, **options)

        return compose(self.spec, evaluate, *arrays)

    def fused(self, *arrays: Array) -> Array:
        """By one kernel on each device, partitioned over the mesh."""
        layout = Layout(NAMES[: len(arrays)], ("y",), self.num_heads, self.mapped)
        [y] = over_mesh(self.on_shards, layout)(*arrays)
        return y

    def on_shards(self, specs: OperandSpecs | None, *arrays: Array) -> tuple[Array]:
        """On the shards of one device; where several hold channels of one head, their logits are summed."""
        if specs is not None and specs.share_groups:
            return (self._composed_on_shards(specs, *arrays),)
        v, q, k, *bias = arrays
        sizes, end = v.shape[: self.mapped + 1], self.mapped + 1
        folded = [array.reshape(math.prod(sizes), *array.shape[end:]) for array in (v, q, k)]
        for array in bias:
            each = jnp.broadcast_to(jnp.expand_dims(array, -3), (*sizes, *array.shape[-2:])) if self.mapped else array
            folded.append(each.reshape(-1, *array.shape[-2:]))
        heads = self.num_heads if specs is None else self.num_heads // specs.group_devices
        y = _device_attention_p.bind(*folded, spec=self.spec, num_heads=heads, preference=self.preference)
        return (y.reshape(v.shape),)

    def _composed_on_shards(self, specs: OperandSpecs, *arrays: Array) -> Array:
        on_device = functools.partial(evaluate_on_device, self.preference)
        *_, height, width, _ = arrays[0].shape

        def evaluate(results: Mapping[Name, Any], operands: Mapping[Name, Array], spec: FilterSpec):
            dtypes = tuple(map(jnp.dtype, results.values()))
            form = Form(spec, (height, width), self.num_heads, tuple(operands), tuple(results), dtypes)
            outputs = form_on_shards(on_device, form, self.mapped, specs, *operands.values())
            return dict(zip(results, outputs, strict=True))

        return compose(self.spec, evaluate, *arrays)


def attend(
    v: Array,
    q: Array,
    k: Array,
    bias: Array | None,
    *,
    spec: AttentionSpec,
    num_heads: int,
    preference: Preference,
) -> Array:
    """Attention in a neighbourhood, without checks.

    Args:
      v: values [..., B, H, W, C], and alike q and k.
      bias: [..., G, T], or None.
      spec: the options.
      num_heads: G.
      preference: implementations, best first.
    """
    given = [array for array in (v, q, k, bias) if array is not None]
    arrays = [compat.varying_like(array, *given) for array in given]
    return _bind(_Call(spec, num_heads, preference, v.ndim - 4), *arrays)


def _bind(call: _Call, *arrays: Array) -> Array:
    return attention_p.bind(*arrays, program=_composition(call).trace(*arrays).jaxpr, call=call)


@functools.cache
def _composition(call: _Call) -> Any:
    return jax.jit(call.composed)


@functools.cache
def _fused(call: _Call) -> Any:
    return jax.jit(call.fused)


def _run(*arrays: Array, program: Any, call: _Call) -> Array:
    del program
    implementation = choose(call.preference, device_of_array(arrays[0]), arrays)
    return (_fused if hasattr(implementation, "attend") else _composition)(call)(*arrays)


def _run_on_device(*arrays: Array, preference: Preference, **options: Any) -> Array:
    """Where `jax.disable_jit` or `jax.debug_nans` runs a program operation by operation."""
    implementation: Any = choose(preference, device_of_array(arrays[0]), arrays)
    return implementation.attend(*arrays, **options)


def _jvp(primals: Sequence[Array], tangents: Sequence[Any], *, program: Any, call: _Call):
    del program
    y = _bind(call, *primals)
    moved = {at: dot for at, dot in enumerate(tangents) if type(dot) is not ad.Zero}
    if not moved:
        return y, ad.Zero(jax.typeof(y))
    return y, _directional(call, tuple(moved))(list(primals), list(moved.values()))


@functools.cache
def _directional(call: _Call, moved: tuple[int, ...]) -> Any:
    """The directional derivative of the composition; in reverse mode its logits are computed in the backward pass."""

    def directional(primals: list[Array], dots: list[Array]) -> Array:
        def composed(*values: Array) -> Array:
            replaced = dict(enumerate(primals)) | dict(zip(moved, values, strict=True))
            return _composition(call)(*replaced.values())

        return jax.jvp(composed, [primals[at] for at in moved], dots)[1]

    return jax.checkpoint(directional)


def _batch(arrays: Sequence[Array], axes: Sequence[int | None], *, program: Any, call: _Call):
    del program
    [size] = {array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None}
    mapped = [
        jnp.broadcast_to(array, (size, *array.shape)) if axis is None else jnp.moveaxis(array, axis, 0)
        for array, axis in zip(arrays, axes, strict=True)
    ]
    return _bind(dataclasses.replace(call, mapped=call.mapped + 1), *mapped), 0


def _lower(context: Any, *values: Any, program: Any, call: _Call) -> Any:
    implementation = choose(call.preference, device_of(context), context.avals_in)
    if hasattr(implementation, "attend"):
        return mlir.lower_fun(call.fused, multiple_results=False)(context, *values)
    return mlir.lower_fun(jaxpr_as_fun(program))(context, *values)


def _device_type(v: Any, *others: Any, **_: Any) -> Any:
    return compat.array_type(v.shape, v.dtype, v)


def _lower_on_device(context: Any, *values: Any, preference: Preference, **options: Any) -> Any:
    def function_of(implementation: Any) -> Any:
        return lambda *arrays: [implementation.attend(*arrays, **options)]

    return lower_on_device(context, values, preference, function_of)


attention_p.def_impl(_run)
attention_p.def_abstract_eval(lambda *avals, program, call: program.out_avals[0])
ad.primitive_jvps[attention_p] = _jvp
batching.primitive_batchers[attention_p] = _batch
_device_attention_p.def_impl(_run_on_device)
_device_attention_p.def_abstract_eval(_device_type)
for platform in (None, "cuda"):  # of several platforms in one program, the one for CUDA differs
    mlir.register_lowering(attention_p, _lower, platform=platform)
    mlir.register_lowering(_device_attention_p, _lower_on_device, platform=platform)
