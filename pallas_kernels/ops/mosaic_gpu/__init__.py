"""The operator as Pallas:Mosaic GPU kernels for NVIDIA GPUs, Hopper or newer, at a scale of 1.

There is one of the forward pass and one of both filters' cotangents. That of x is left to Triton's kernel.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

from jax import Array

from pallas_kernels.ops import normalization
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.form import Form, Name
from pallas_kernels.ops.implementation import Operands, Results
from pallas_kernels.ops.mosaic_gpu import blocks
from pallas_kernels.ops.mosaic_gpu.blocks import Block
from pallas_kernels.ops.mosaic_gpu.dfilters import filter_cotangents
from pallas_kernels.ops.mosaic_gpu.fwd import forward as forward
from pallas_kernels.ops.spec import FilterSpec, accumulator_dtype

FILTERS = ("spatial", "channel")


def why_not(form: Form | None, types: Sequence[Any]) -> str | None:
    """Why the kernels cannot compute a form of arrays of these types, or None where they can; no form is attention."""
    if form is None:
        return "has no attention."
    forward = form.results == ("y",)
    filters = "y" not in form.results and {*FILTERS} <= {*form.results} and form.spec.combine == "mul"
    if form.tangents or not (forward or filters):
        return "has the forward pass and both filters' cotangents; name another for the rest: ('mosaic_gpu', 'triton')."
    if "x" in form.results and importlib.util.find_spec("pallas_kernels.ops.triton") is None:
        return "leaves the cotangent of x to 'triton', which is not part of this installation."
    arrays = dict(zip(form.arrays, types, strict=True))
    shape = ArgShape.of(arrays["x"], arrays.get("spatial"), arrays.get("channel"), form.spec)
    itemsizes = [array.dtype.itemsize for array in types] + ([form.dtypes[0].itemsize] if forward else [])
    return blocks.why_not(shape, itemsizes, "fwd" if forward else "dfilters")


def backward(
    operands: Operands, results: Results, spec: FilterSpec, *, block: Block | None = None, interpret: Any = None
) -> dict[Name, Array]:
    """As in `implementation.Implementation`, of forms that `why_not` accepts."""
    x, dy, spatial, channel = operands.x, operands.y, operands.spatial, operands.channel
    assert x is not None
    assert dy is not None
    assert spatial is not None
    assert channel is not None
    wide = accumulator_dtype(x, dy, spatial, channel)
    dtype = wide if spec.normalize else results["spatial"].dtype
    found: dict[Name, Array] = {}
    found["spatial"], found["channel"] = filter_cotangents(
        x, dy, spatial, channel, spec, dtype, block=block, interpret=interpret
    )
    if spec.normalize:
        cotangent = found["spatial"].astype(wide)
        found["spatial"] = normalization.pull_back(spatial.astype(wide), cotangent, spec)
    if "x" in results:
        from pallas_kernels.ops import triton  # a back end that may be missing

        found |= triton.backward(operands, {"x": results["x"]}, spec)
    return {name: found[name].astype(struct.dtype) for name, struct in results.items()}
