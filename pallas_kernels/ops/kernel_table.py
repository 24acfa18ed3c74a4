"""One row per kernel and call: what its machine code takes, and how fast it could be at best on a device."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from pallas_kernels import aot
from pallas_kernels.ops import heuristics
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.config import Pass, Problem, loop_trips, outputs_per_program
from pallas_kernels.ops.triton import bwd, fwd
from pallas_kernels.ops.vjp import Residuals


@dataclasses.dataclass(frozen=True)
class KernelRow:
    """A row of `ddf kernels`."""

    kernel: Pass
    spec: str  # the call's name in `arg_specs`, and its dtype
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int
    vector_load_share: float  # of the bytes loaded, those that come 128 bits at a time
    instructions_per_output: float  # executed, per lane and element of y (of x for the cotangent of x)
    minimum_bytes: int  # every input and the output once
    floor_us: float  # those at the bandwidth of the memory
    instruction_bound_us: float  # every instruction issued, one per lane and clock


def kernel_rows(device: aot.Device, arg: ArgSpec, dtype: DTypeLike) -> Iterator[KernelRow]:
    """Compiles the kernels of one call, the forward pass and each cotangent, for a device that need not be there.

    Raises:
      NotImplementedError: Triton's compiler is not installed.
    """
    x, spatial, channel = arg.structs(dtype)
    assert x is not None
    problem = Problem.of(x, spatial, channel, arg.spec)
    dy = jax.ShapeDtypeStruct(arg.output_shape(), dtype)

    def every_kernel(inputs: Residuals, dy: jax.Array):
        return fwd.forward(*inputs, arg.spec), bwd.backward(inputs, dy, arg.spec)

    inputs = Residuals(x, spatial, channel)  # pyright: ignore[reportArgumentType]
    for kernel in aot.triton_kernels(every_kernel, inputs, dy, device=device):
        which = _PASSES[kernel.name]
        used = aot.resources(kernel, device)
        with aot.one_device(device):
            config = heuristics.choose(problem, which)
        lanes = 32 * kernel.warps
        executed = used.executed(loop_trips(problem, config, which))
        per_program = outputs_per_program(problem, config, which)
        minimum_bytes = _minimum_bytes(which, inputs, dy, arg)
        yield KernelRow(
            kernel=which,
            spec=f"{arg.name} {jnp.dtype(dtype).name}",
            registers=used.registers,
            spill_bytes=used.spill_bytes,
            stack_bytes=used.stack_bytes,
            shared_bytes=used.shared_bytes,
            vector_load_share=round(used.vector_load_share, 3),
            instructions_per_output=round(executed * lanes / per_program, 2),
            minimum_bytes=minimum_bytes,
            floor_us=round(1e6 * minimum_bytes / device.bandwidth, 2),
            instruction_bound_us=round(1e6 * executed * lanes * kernel.programs / device.instructions, 2),
        )


def _minimum_bytes(which: Pass, inputs: Residuals, dy: jax.ShapeDtypeStruct, arg: ArgSpec) -> int:
    """What the kernel must read and write at least: its inputs and its output once."""
    x, spatial, channel = inputs
    multiplied = arg.spec.combine == "mul"
    arrays: dict[Pass, tuple[Any, ...]] = {
        "forward": (x, spatial, channel, dy),  # y is as large as dy
        "input": (dy, spatial, channel, x),
        "spatial": (x, dy, channel if multiplied else None, spatial),
        "channel": (x, dy, spatial if multiplied else None, channel),
        "filters": (x, dy, *((spatial, channel) if multiplied else ()), spatial, channel),
    }
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays[which] if array is not None)


_PASSES: dict[str, Pass] = {
    "dynamic_filter_forward": "forward",
    "dynamic_filter_input_gradient": "input",
    "dynamic_filter_spatial_gradient": "spatial",
    "dynamic_filter_channel_gradient": "channel",
    "dynamic_filter_filters_gradient": "filters",
}
