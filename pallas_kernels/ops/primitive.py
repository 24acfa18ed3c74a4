"""The operator as a JAX primitive: its derivatives of any order and mode, its batching, and its lowering.

Two primitives, both called "dynamic_filter…": the outer one has the derivatives and holds a program in which the form
is partitioned over the mesh (`partition.py`); in that program the inner one is the form on one device, for which an
implementation is chosen when it is lowered for a platform (`choice.py`).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from pallas_kernels import compat
from pallas_kernels.ops import partition
from pallas_kernels.ops.choice import Preference, choose
from pallas_kernels.ops.device import device_of_array
from pallas_kernels.ops.form import Form, Name, in_order, replaced, select
from pallas_kernels.ops.implementation import evaluate
from pallas_kernels.ops.lowering import lower_on_device
from pallas_kernels.ops.normalization import normalized, pull_back, push_forward
from pallas_kernels.ops.spec import FilterSpec, accumulator_dtype

form_p = Primitive("dynamic_filter")
form_p.multiple_results = True
_device_form_p = Primitive("dynamic_filter_on_device")
_device_form_p.multiple_results = True


@dataclasses.dataclass(frozen=True)
class _Call:
    """What the operands of an evaluation have in common: all but the names of operands and results."""

    form: Form
    preference: Preference
    mapped: int


def apply(
    results: Mapping[Name, jnp.dtype],
    operands: Mapping[Name, Array],
    *,
    spec: FilterSpec,
    size: tuple[Any, Any],
    groups: int,
    preference: Preference,
    mapped: int = 0,
) -> dict[Name, Array]:
    """Partial derivatives of the form; see `form.py`.

    Args:
      results: their names, with their dtypes.
      operands: those that the results depend on, all with `mapped` leading axes.
      spec: the options of the operator.
      size: H and W of x.
      groups: G.
      preference: implementations, best first.
      mapped: number of leading axes, over which the operator is a loop.
    """
    # Inside `jax.shard_map` the transpose of this cast sums the cotangents of operands that devices share.
    arrays = list(operands.values())
    operands = {name: compat.varying_like(array, *arrays) for name, array in operands.items()}
    form = Form(spec, size, groups, (), (), ())
    return _evaluate(_Call(form, preference, mapped), results, operands)


def _evaluate(
    call: _Call, results: Mapping[Name, Any], operands: Mapping[Name, Array], tangents: Mapping[Name, Array] = {}
) -> dict[Name, Array]:
    """The results that are not zero: partial derivatives, or with tangents the sums of their directional derivatives.

    Args:
      call: the options.
      results: names and dtypes.
      operands: at least those that the results depend on.
      tangents: of operands.
    """
    form = call.form
    parts = {name: replaced(form, operands, name, tangent) for name, tangent in tangents.items()}
    if not tangents:
        uses = [form.depends_on(result, operands) for result in results]
    else:
        pairs = [(name, result) for name in parts for result in results if name in form.depends_on(result, parts[name])]
        results = {result: results[result] for result in results if any(result == other for _, other in pairs)}
        parts = {name: part for name, part in parts.items() if any(name == other for other, _ in pairs)}
        uses = [set(form.depends_on(result, parts[name])) - {name} for name, result in pairs]
    if not results:
        return {}
    needed = {name for names in uses for name in names}
    if form.spec.normalize and ("spatial" in results or "spatial" in parts):
        needed.add("spatial")
    if len(parts) == 1 and not (form.spec.normalize and "spatial" in parts):
        [(name, part)] = parts.items()  # the tangent takes the place of its operand
        operands, parts = select({*needed, name}, part), {}
    else:
        operands = select(needed, operands)
    tangents = select(parts, tangents)
    results = in_order(results)
    form = dataclasses.replace(
        form,
        operands=tuple(operands),
        tangents=tuple(tangents),
        results=tuple(results),
        dtypes=tuple(map(jnp.dtype, results.values())),
    )
    outputs = _bind(dataclasses.replace(call, form=form), *operands.values(), *tangents.values())
    return dict(zip(results, outputs, strict=True))


def _bind(call: _Call, *arrays: Array) -> list[Array]:
    return form_p.bind(*arrays, program=_partitioned(call).trace(*arrays).jaxpr, call=call)


@functools.cache
def _partitioned(call: _Call) -> Any:
    """The form as a jitted function of its arrays, partitioned over their mesh."""

    on_device = functools.partial(evaluate_on_device, call.preference)
    return jax.jit(partition.split(on_device, call.form, call.mapped))


def evaluate_on_device(preference: Preference, form: Form, *arrays: Array) -> list[Array]:
    """The form on one device."""
    return _device_form_p.bind(*arrays, form=form, preference=preference)


def _jvp(primals: Sequence[Array], tangents: Sequence[Any], *, program: Any, call: _Call):
    """The form is linear in each operand: its derivative is a sum of forms with one operand replaced by its tangent."""
    del program
    form = call.form
    outputs = _bind(call, *primals)
    operands, directions = _split(form, primals)
    dots, direction_dots = (
        {name: dot for name, dot in part.items() if type(dot) is not ad.Zero} for part in _split(form, tangents)
    )
    results = dict(zip(form.results, form.dtypes, strict=True))
    if form.spec.normalize and (directions or form.results != ("y",)):
        terms = [_normalized_jvp(call, operands, directions, dots, direction_dots)]
    elif not directions:
        terms = [_evaluate(call, results, operands, dots)]
    else:
        terms = [_evaluate(call, results, operands, direction_dots)] if direction_dots else []
        for name, direction in directions.items():
            part = replaced(form, operands, name, direction)
            dependent = {result: results[result] for result in results if name in form.depends_on(result, part)}
            if others := {other: dot for other, dot in dots.items() if other != name and other in part}:
                terms.append(_evaluate(call, dependent, part, others))
    sums = _sum(terms)
    return outputs, [
        sums.get(name, ad.Zero(jax.typeof(output))) for name, output in zip(form.results, outputs, strict=True)
    ]


def _normalized_jvp(
    call: _Call,
    operands: dict[Name, Array],
    directions: dict[Name, Array],
    dots: dict[Name, Array],
    direction_dots: dict[Name, Array],
) -> dict[Name, Array]:
    """The tangents of a derivative of the form with a normalised filter, by the derivatives of the normalisation."""
    form = call.form
    plain = dataclasses.replace(call, form=dataclasses.replace(form, spec=form.spec.without_normalization()))

    def function(operands: dict[Name, Array], directions: dict[Name, Array]) -> dict[Name, Array]:
        wide = accumulator_dtype(*operands.values())
        results = dict.fromkeys(form.results, wide)
        given, directions = operands.get("spatial"), dict(directions)
        if given is not None:
            given = given.astype(wide)
            operands = {**operands, "spatial": normalized(given, form.spec)}
            if "spatial" in directions:
                direction = directions["spatial"].astype(wide)
                directions["spatial"] = push_forward(given, direction, form.spec)
        found = _evaluate(plain, results, operands, directions)
        if "spatial" in found:
            assert given is not None
            found["spatial"] = pull_back(given, found["spatial"], form.spec)
        return {
            name: found[name].astype(dtype)
            for name, dtype in zip(form.results, form.dtypes, strict=True)
            if name in found
        }

    def filled(values: dict[Name, Array], some: dict[Name, Array]) -> dict[Name, Array]:
        return {name: some.get(name, jnp.zeros_like(value)) for name, value in values.items()}

    return jax.jvp(function, (operands, directions), (filled(operands, dots), filled(directions, direction_dots)))[1]


def _transpose(cotangents: Sequence[Any], *arrays: Any, program: Any, call: _Call) -> list[Any]:
    """The transpose of a partial derivative is the one with respect to the linear operand."""
    del program
    form = call.form
    linear = {
        name: array.aval for name, array in zip(form.arrays, arrays, strict=True) if ad.is_undefined_primal(array)
    }
    operands = {name: array for name, array in _split(form, arrays)[0].items() if not ad.is_undefined_primal(array)}
    terms = []
    for result, cotangent in zip(form.results, cotangents, strict=True):
        if type(cotangent) is ad.Zero:
            continue
        part, at = replaced(form, operands, result, cotangent), call
        if form.spec.normalize and result == "spatial":
            wide = accumulator_dtype(operands[result], cotangent)
            part[result] = push_forward(operands[result].astype(wide), cotangent.astype(wide), form.spec)
            at = dataclasses.replace(call, form=dataclasses.replace(form, spec=form.spec.without_normalization()))
        wanted = {
            name: aval.dtype for name, aval in linear.items() if name in form.depends_on(result, {*part, *linear})
        }
        terms.append(_evaluate(at, wanted, part))
    sums = _sum(terms)
    found = {
        name: partition.reshard_like(sums[name], aval) if name in sums else ad.Zero(aval)
        for name, aval in linear.items()
    }
    return [
        found[name] if ad.is_undefined_primal(array) else None for name, array in zip(form.arrays, arrays, strict=True)
    ]


def _batch(arrays: Sequence[Array], axes: Sequence[int | None], *, program: Any, call: _Call):
    del program
    [size] = {array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None}
    mapped = [
        jnp.broadcast_to(array, (size, *array.shape)) if axis is None else jnp.moveaxis(array, axis, 0)
        for array, axis in zip(arrays, axes, strict=True)
    ]
    outputs = _bind(dataclasses.replace(call, mapped=call.mapped + 1), *mapped)
    return outputs, [0] * len(outputs)


def _split(form: Form, values: Sequence[Any]) -> tuple[dict[Name, Any], dict[Name, Any]]:
    """Operands and tangents."""
    end = len(form.operands)
    return dict(zip(form.operands, values[:end], strict=True)), dict(zip(form.tangents, values[end:], strict=True))


def _sum(terms: Sequence[Mapping[Name, Array]]) -> dict[Name, Array]:
    sums: dict[Name, Array] = {}
    for name, value in (item for term in terms for item in term.items()):
        sums[name] = sums[name] + value if name in sums else value
    return sums


def _device_types(*avals: Any, form: Form, preference: Preference) -> list[Any]:
    del preference
    first = next(aval for aval, name in zip(avals, form.arrays, strict=True) if name in ("x", "y"))
    shapes = form.result_shapes(first.shape[0], first.shape[-1])
    return [compat.array_type(shape, dtype, first) for shape, dtype in zip(shapes, form.dtypes, strict=True)]


def _run_on_device(*arrays: Array, form: Form, preference: Preference) -> list[Array]:
    """Where `jax.disable_jit` or `jax.debug_nans` runs a program operation by operation."""
    return list(evaluate(choose(preference, device_of_array(arrays[0]), arrays, form), form, *arrays))


def _lower_on_device(context: Any, *values: Any, form: Form, preference: Preference) -> Any:
    return lower_on_device(context, values, preference, lambda module: functools.partial(evaluate, module, form), form)


form_p.def_impl(lambda *arrays, program, call: _partitioned(call)(*arrays))
form_p.def_abstract_eval(lambda *avals, program, call: program.out_avals)
ad.primitive_jvps[form_p] = _jvp
ad.primitive_transposes[form_p] = _transpose
batching.primitive_batchers[form_p] = _batch
mlir.register_lowering(
    form_p, mlir.lower_fun(lambda *arrays, program, call: jaxpr_as_fun(program)(*arrays), multiple_results=True)
)

_device_form_p.def_impl(_run_on_device)
_device_form_p.def_abstract_eval(_device_types)
mlir.register_lowering(_device_form_p, _lower_on_device)
mlir.register_lowering(_device_form_p, _lower_on_device, platform="cuda")
