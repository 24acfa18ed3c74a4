"""The kernel table: one row per kernel of a call, with the resources of its machine code and bounds of its time."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from pallas_kernels.aot.latency import Prediction, Traffic, predict, predict_copied
from pallas_kernels.aot.machine_code import Resources, resources
from pallas_kernels.aot.mosaic import mosaic_resources
from pallas_kernels.aot.programs import triton_kernels
from pallas_kernels.aot.targets import Device, use_target
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.autotune import choose_config
from pallas_kernels.ops.config import ArgShape, KernelName, loop_trips, outputs_per_program
from pallas_kernels.ops.roofline import issue_roofline_us, memory_roofline_us, read_bytes, written_bytes

# The names of kernels and columns in printed and stored rows, where they differ from those in Python.
ROW_KERNELS: dict[KernelName, str] = {
    "fwd": "forward",
    "dx": "input",
    "dspatial": "spatial",
    "dchannel": "channel",
    "dfilters": "filters",
}
ROW_COLUMNS = {"memory_roofline_us": "floor_us", "issue_roofline_us": "instruction_bound_us"}


@dataclasses.dataclass(frozen=True)
class KernelRow:
    """The facts of one compiled kernel.

    Args:
      kernel: which kernel of the operator.
      spec: the call's name in `ARG_SPECS`, and its dtype.
      registers: per thread.
      spill_bytes: per thread.
      stack_bytes: per thread.
      shared_bytes: per program.
      vector_load_share: the share of the loaded bytes that 128-bit loads bring.
      instructions_per_output: executed, per lane and element of y (of x for dx).
      minimum_bytes: every input and output once.
      memory_roofline_us: microseconds to move those at the bandwidth of the memory.
      issue_roofline_us: microseconds to issue every instruction, one per lane and clock.
      resident_warps: of a multiprocessor.
      waves: programs of a multiprocessor, over those that are resident at once.
      bytes_in_flight: of a multiprocessor's loads, on average.
      exposed_latency_us: of the predicted time, the share that loads from the L1 cache alone would save.
      predicted_us: by `latency.predict`.
    """

    kernel: KernelName
    spec: str
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int
    vector_load_share: float
    instructions_per_output: float
    minimum_bytes: int
    memory_roofline_us: float
    issue_roofline_us: float
    resident_warps: int
    waves: float
    bytes_in_flight: int
    exposed_latency_us: float
    predicted_us: float

    def as_row(self) -> dict[str, Any]:
        """The row as printed and stored, with the names of `ROW_KERNELS` and `ROW_COLUMNS`."""
        row = {ROW_COLUMNS.get(name, name): value for name, value in dataclasses.asdict(self).items()}
        return row | {"kernel": ROW_KERNELS[self.kernel]}


def kernel_table(
    device: Device, arg: ArgSpec, dtype: DTypeLike, implementation: Literal["triton", "mosaic_gpu"] = "triton"
) -> Iterator[KernelRow]:
    """Compiles the kernels of one call, forward and backward, for a device. No GPU needed.

    Raises:
      NotImplementedError: a compiler is not installed, or the implementation cannot compute the call.
    """
    if implementation == "mosaic_gpu":
        yield from _mosaic_rows(device, arg, dtype)
        return
    structs, dy = arg.structs(dtype), arg.output_struct(dtype)
    shape = ArgShape.of(*structs, arg.spec)

    def every_kernel(dy: jax.Array, *inputs: Any):
        y, pull_back = jax.vjp(lambda *inputs: arg.call(*inputs, implementation="triton"), *inputs)
        return y, pull_back(dy)

    for triton_kernel in triton_kernels(every_kernel, dy, *structs, device=device):
        if triton_kernel.name not in _KERNELS:  # of the normalisation
            continue
        kernel = _KERNELS[triton_kernel.name]
        used = resources(triton_kernel, device)
        with use_target(device):
            config = choose_config(shape, kernel)
        trips = loop_trips(shape, config, kernel)
        read, written = read_bytes(arg, dtype, kernel), written_bytes(arg, dtype, kernel)
        traffic = Traffic(triton_kernel.num_programs, triton_kernel.num_warps, read, written)
        yield _row(
            kernel=kernel,
            spec=f"{arg.name} {jnp.dtype(dtype).name}",
            used=used,
            traffic=traffic,
            trips=trips,
            outputs=outputs_per_program(shape, config, kernel),
            device=device,
            predicted=predict(used, traffic, trips, device),
        )


def _mosaic_rows(device: Device, arg: ArgSpec, dtype: DTypeLike) -> Iterator[KernelRow]:
    """Of the forward kernel, and of those of the backward pass that there are."""
    from pallas_kernels.ops.mosaic_gpu import blocks, selection  # a back end that may be missing

    call = ArgShape.of(*arg.structs(dtype), arg.spec)
    filters = call.has_spatial and call.has_channel and arg.spec.combine == "mul"
    kernels: tuple[blocks.Kernel, ...] = ("fwd", "dx", "dfilters") if filters else ("fwd", "dx")
    for kernel in kernels:
        if kernel != "fwd" and selection.why_not(call, [call.itemsize], kernel):
            continue
        used = mosaic_resources(device, arg, dtype, kernel)
        shape = blocks.transposed(call, call.itemsize) if kernel == "dx" else call
        block = selection.choose_block(shape, kernel)
        assert block is not None  # the call was compiled
        read, written = read_bytes(arg, dtype, kernel), written_bytes(arg, dtype, kernel)
        traffic = Traffic(blocks.num_blocks(shape, block), blocks.WARPS, read, written)
        trips = blocks.loop_trips(shape, block)
        asked = blocks.step_bytes(shape, block, kernel) * block.ahead
        yield _row(
            kernel=kernel,
            spec=f"{arg.name} {jnp.dtype(dtype).name}",
            used=used,
            traffic=traffic,
            trips=trips,
            outputs=block.rows * block.width * block.channels,
            device=device,
            predicted=predict_copied(used, traffic, trips, device, asked),
        )


def _row(
    *,
    kernel: KernelName,
    spec: str,
    used: Resources,
    traffic: Traffic,
    trips: Sequence[int],
    outputs: int,
    device: Device,
    predicted: Prediction,
) -> KernelRow:
    executed, moved = 32 * traffic.warps * used.executed(trips), traffic.read_bytes + traffic.written_bytes
    return KernelRow(
        kernel=kernel,
        spec=spec,
        registers=used.registers,
        spill_bytes=used.spill_bytes,
        stack_bytes=used.stack_bytes,
        shared_bytes=used.shared_bytes,
        vector_load_share=round(used.vector_load_share, 3),
        instructions_per_output=round(executed / outputs, 2),
        minimum_bytes=moved,
        memory_roofline_us=round(memory_roofline_us(moved, device.bandwidth), 2),
        issue_roofline_us=round(issue_roofline_us(executed * traffic.programs, device.issue_rate), 2),
        resident_warps=predicted.resident_warps,
        waves=predicted.waves,
        bytes_in_flight=predicted.bytes_in_flight,
        exposed_latency_us=predicted.exposed_us,
        predicted_us=predicted.time_us,
    )


_KERNELS: dict[str, KernelName] = {f"dynamic_filter_{kernel}": kernel for kernel in ROW_KERNELS}
