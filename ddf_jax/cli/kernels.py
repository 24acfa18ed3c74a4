"""`ddf kernels`."""

import dataclasses
import fnmatch
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ddf_jax.cli.command import CommandResult, explained
from ddf_jax.errors import UserError

if TYPE_CHECKING:
    from pallas_kernels import ArgSpec
    from pallas_kernels.aot import KernelRow


@dataclasses.dataclass(frozen=True)
class KernelsCommand:
    """Compile the GPU kernels ahead of time; no GPU is needed.

    Per kernel it prints registers, spills and stack of a thread, shared memory of a program, the share of loaded bytes
    that come 128 bits at a time, instructions per output element, and two lower bounds of its time: memory-bound, where
    every array moves once, and issue-bound, where every instruction issues once. A simulation of the code adds the
    warps of a multiprocessor, the waves of programs, the time that waits for loads, and the time. It needs Triton's
    compiler: pip install triton.

    Examples:
      ddf kernels 'resnet50_56*'
      ddf kernels --device a100 --dtype float32 --json
    """

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[PATTERN]")] = "*"
    """Calls of the operator by name, or a shell pattern in quotes. All of them take minutes."""
    device: Literal["h200", "h100", "a100"] = "h200"
    """The GPU to compile for."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Dtype of every array."""
    implementation: Literal["triton", "mosaic_gpu"] = "triton"
    """The kernels' implementation; mosaic_gpu needs JAX 0.11 or newer and its CUDA plugin."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `[{kernel, spec, registers, spill_bytes, stack_bytes, shared_bytes, vector_load_share,
    instructions_per_output, minimum_bytes, floor_us, instruction_bound_us, resident_warps, waves, bytes_in_flight,
    exposed_latency_us, predicted_us}]`."""

    def run(self) -> CommandResult:
        from pallas_kernels.aot import DEVICES, kernel_table

        calls, rows, device = _calls(self.pattern), [], DEVICES[self.device]
        with explained():
            for row in (row for arg in calls for row in kernel_table(device, arg, self.dtype, self.implementation)):
                if not rows:
                    print(_HEADER)
                print(_text(row), flush=True)  # at once: a call takes seconds
                rows.append(row)
        spilling = sum(row.spill_bytes + row.stack_bytes > 0 for row in rows)
        text = f"{len(rows)} kernels compiled for {device.name}; {spilling} of them spill."
        return CommandResult([row.as_row() for row in rows], text)


_HEADER = (
    f"{'':38}{'kernel':>8}{'registers':>10}{'spill':>6}{'stack':>6}{'shared':>7}{'128-bit':>8}{'instr/out':>10}"
    f"{'MB':>9}{'memory-bound µs':>17}{'issue-bound µs':>16}{'warps':>6}{'waves':>6}{'waiting µs':>11}"
    f"{'predicted µs':>13}"
)


def _calls(pattern: str) -> "list[ArgSpec]":
    from pallas_kernels import ARG_SPECS

    calls = [arg for name, arg in ARG_SPECS.items() if fnmatch.fnmatchcase(name, pattern)]
    if not calls:
        raise UserError(f"No call's name matches {pattern!r}; the names are {', '.join(ARG_SPECS)}.")
    return calls


def _text(row: "KernelRow") -> str:
    return (
        f"{row.spec:38}{row.as_row()['kernel']:>8}{row.registers:10}{row.spill_bytes:6}{row.stack_bytes:6}{row.shared_bytes:7}"
        f"{row.vector_load_share:8.0%}{row.instructions_per_output:10.1f}{row.minimum_bytes / 1e6:9.2f}"
        f"{row.memory_roofline_us:17.2f}{row.issue_roofline_us:16.2f}{row.resident_warps:6}{row.waves:6.2f}"
        f"{row.exposed_latency_us:11.2f}{row.predicted_us:13.2f}"
    )
