"""The operator as Pallas:Mosaic GPU kernels for NVIDIA GPUs, Hopper or newer: the forward pass at a scale of 1."""

from collections.abc import Sequence
from typing import Any

from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.form import Form
from pallas_kernels.ops.implementation import Operands, Results
from pallas_kernels.ops.mosaic_gpu import blocks
from pallas_kernels.ops.mosaic_gpu.fwd import forward as forward
from pallas_kernels.ops.spec import FilterSpec


def why_not(form: Form | None, types: Sequence[Any]) -> str | None:
    """Why the kernels cannot compute a form of arrays of these types, or None where they can; no form is attention."""
    if form is None or form.results != ("y",):
        return "has the forward pass of the filter alone; name another next to it, as in ('mosaic_gpu', 'triton')."
    arrays = dict(zip(form.arrays, types, strict=False))
    shape = ArgShape.of(arrays["x"], arrays.get("spatial"), arrays.get("channel"), form.spec)
    return blocks.why_not(shape, [array.dtype.itemsize for array in types])


def backward(operands: Operands, results: Results, spec: FilterSpec) -> Any:
    """There is none: `why_not` says so where a program is lowered."""
    del operands, results, spec
    raise NotImplementedError("The Mosaic kernels have no backward pass.")
