"""The operator as Pallas:Mosaic GPU kernels for NVIDIA GPUs, Hopper or newer, at a scale of 1.

There is one of the forward pass, one of the cotangent of x and one of both filters' cotangents. What of a backward pass
they cannot compute is left to Triton's kernels.
"""

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
from jax import Array

from pallas_kernels.ops import normalization
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.form import FILTERS, Form, Name, select
from pallas_kernels.ops.implementation import Operands, Results
from pallas_kernels.ops.mosaic_gpu import selection
from pallas_kernels.ops.mosaic_gpu.blocks import Block, Kernel
from pallas_kernels.ops.mosaic_gpu.dfilters import filter_cotangents
from pallas_kernels.ops.mosaic_gpu.dx import input_cotangent
from pallas_kernels.ops.mosaic_gpu.fwd import forward as forward
from pallas_kernels.ops.spec import FilterSpec, accumulator_dtype


def why_not(form: Form | None, types: Sequence[Any]) -> str | None:
    """Why the kernels cannot compute a form of arrays of these types, or None where they can; no form is attention."""
    if form is None:
        return "has no attention."
    if form.tangents:
        return "has no forward-mode derivatives."
    arrays = dict(zip(form.arrays, types, strict=True))
    sizes = {name: array.dtype.itemsize for name, array in arrays.items()}
    results = dict(zip(form.results, form.dtypes, strict=True))
    batch, *_, channels = next(arrays[name] for name in ("x", "y") if name in arrays).shape
    x = jax.ShapeDtypeStruct((batch, *form.size, channels), arrays["x"].dtype if "x" in arrays else results["x"])
    shape = ArgShape.of(x, arrays.get("spatial"), arrays.get("channel"), form.spec)
    itemsizes = [*sizes.values(), *(dtype.itemsize for dtype in form.dtypes)]
    if "y" in form.results:
        return selection.why_not(shape, itemsizes)
    found, reason = _kernels(shape, form.results, [sizes["y"], *itemsizes])
    if not found:
        return reason
    rest = {*form.results}.difference(*found.values())
    if rest and importlib.util.find_spec("pallas_kernels.ops.triton") is None:
        return f"leaves the cotangents of {sorted(rest)} to 'triton', which is not part of this installation: {reason}"
    return None


def backward(
    operands: Operands,
    results: Results,
    spec: FilterSpec,
    *,
    chosen: Mapping[Kernel, Block] | None = None,
    interpret: Any = None,
) -> dict[Name, Array]:
    """As in `implementation.Implementation`, of forms that `why_not` accepts; `chosen` blocks by the kernel."""
    dy, given = operands.y, [array for array in operands if array is not None]
    assert dy is not None
    shape = ArgShape.of_backward(operands, results, spec)
    itemsizes = [array.dtype.itemsize for array in (dy, *given, *results.values())]
    kernels, _ = _kernels(shape, results, itemsizes)
    found: dict[Name, Array] = {}
    chosen = chosen or {}
    if "dx" in kernels:
        found["x"] = input_cotangent(
            dy,
            operands.spatial,
            operands.channel,
            shape,
            results["x"].dtype,
            block=chosen.get("dx"),
            interpret=interpret,
        )
    if "dfilters" in kernels:
        x, spatial, channel = operands.x, operands.spatial, operands.channel
        assert x is not None
        assert spatial is not None
        assert channel is not None
        wide = accumulator_dtype(*given)
        dtype = wide if spec.normalize else results["spatial"].dtype
        found["spatial"], found["channel"] = filter_cotangents(
            x, dy, spatial, channel, spec, dtype, block=chosen.get("dfilters"), interpret=interpret
        )
        if spec.normalize:
            cotangent = found["spatial"].astype(wide)
            found["spatial"] = normalization.pull_back(spatial.astype(wide), cotangent, spec)
    if rest := {*results} - {*found}:
        from pallas_kernels.ops import triton  # a back end that may be missing

        found |= triton.backward(operands, select(rest, results), spec)
    return {name: found[name].astype(struct.dtype) for name, struct in results.items()}


def _kernels(
    shape: ArgShape, results: Collection[Name], itemsizes: Sequence[int]
) -> tuple[dict[Kernel, set[Name]], str]:
    """The kernels that compute cotangents, with those of each, and the reason against the last one that does not.

    The first itemsize is that of dy.
    """
    found: dict[Kernel, set[Name]] = {}
    reason = "has the cotangents of x and of both filters at once, with 'mul'; name another for the rest: "
    reason += "('mosaic_gpu', 'triton')."
    wanted: dict[Kernel, set[Name]] = {"dx": {"x"}} if "x" in results else {}
    if {*FILTERS} <= {*results} and shape.spec.combine == "mul":
        wanted["dfilters"] = {*FILTERS}
    for kernel, names in wanted.items():
        against = selection.why_not(shape, itemsizes, kernel)
        if against is None:
            found[kernel] = names
        else:
            reason = against
    return found, reason
