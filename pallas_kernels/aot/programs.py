"""Whole programs for a GPU target: their Triton kernels after lowering, and a summary of the compiled program."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax

from pallas_kernels.aot.targets import DEVICES, Device, use_target

TRITON_CALL = "__gpu$xla.gpu.triton"
"""The custom call of a Triton kernel in a lowered program."""

COLLECTIVES = ("all_gather", "all_reduce", "all_to_all", "collective_permute", "reduce_scatter")
"""The collectives that `program_summary` counts."""


def program_summary(compiled: jax.stages.Compiled) -> dict[str, dict[str, int]]:
    """Collectives by kind, bytes per device and kernels by kind of a compiled program.

    Raises:
      NotImplementedError: the backend does not report them.
    """
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if text is None or memory is None:
        raise NotImplementedError("This backend of JAX reports neither the text nor the memory of a compiled program.")
    collectives = {kind: len(re.findall(rf" {kind.replace('_', '-')}(?:-start)?\(", text)) for kind in COLLECTIVES}
    kernels = Counter(re.findall(r' custom-call\(.*custom_call_target="([^"]+)"', text))
    kernels["fusion"] = len(re.findall(r" fusion\(", text))
    return {
        "collectives": collectives,
        "bytes_per_device": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
        },
        "kernels": dict(sorted(kernels.items())),
    }


def lower(function: Callable[..., Any], *arguments: Any, device: Device = DEVICES["h200"]) -> jax.stages.Lowered:
    """`function(*arguments)` lowered for one device of a kind; arguments may be abstract."""
    with use_target(device):
        return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",))


@dataclasses.dataclass(frozen=True)
class TritonKernel:
    """A kernel of a lowered program.

    Args:
      name: its name in the profiler.
      code: Triton IR.
      num_warps: per program.
      num_stages: of software pipelining.
      num_programs: the size of the launch grid.
    """

    name: str
    code: str
    num_warps: int
    num_stages: int
    num_programs: int


def triton_kernels(
    function: Callable[..., Any], *arguments: Any, device: Device = DEVICES["h200"]
) -> list[TritonKernel]:
    """The Triton kernels of `function(*arguments)` on a device, in program order; arguments may be abstract."""
    from jaxlib.mlir import ir

    kernels = []
    module: Any = lower(function, *arguments, device=device).compiler_ir()
    for operation in _operations(module.operation):
        if operation.name != "stablehlo.custom_call":
            continue
        if ir.StringAttr(operation.attributes["call_target_name"]).value != TRITON_CALL:
            continue
        config = ir.DictAttr(operation.attributes["mhlo.backend_config"])
        number = {key: ir.IntegerAttr(config[key]).value for key in ("num_warps", "num_stages", *_GRID)}
        kernel = TritonKernel(
            name=ir.StringAttr(config["name"]).value,
            code=_triton_text(ir.StringAttr(config["ir"]).value_bytes),
            num_warps=number["num_warps"],
            num_stages=number["num_stages"],
            num_programs=number["grid_x"] * number["grid_y"] * number["grid_z"],
        )
        kernels.append(kernel)
    return kernels


_GRID = ("grid_x", "grid_y", "grid_z")


def _operations(operation: Any) -> Iterator[Any]:
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield inner.operation
                yield from _operations(inner.operation)


def _triton_text(bytecode: bytes) -> str:
    from jaxlib.mlir import ir
    from jaxlib.triton import dialect

    with ir.Context() as context, ir.Location.unknown():
        dialect.register_dialect(context)
        context.load_all_available_dialects()
        context.allow_unregistered_dialects = True
        return str(ir.Module.parse(bytecode))
