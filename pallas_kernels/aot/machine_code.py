"""The machine code of a kernel: its registers, shared memory and executed instructions."""

import dataclasses
import importlib.util
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pallas_kernels.aot.programs import TritonKernel
from pallas_kernels.aot.targets import Device


@dataclasses.dataclass(frozen=True)
class Resources:
    """The resources and the machine code of a compiled kernel.

    Args:
      registers: per thread.
      spill_bytes: per thread.
      stack_bytes: per thread.
      shared_bytes: per program.
      instructions: opcodes with their suffixes, in order.
      loops: first and last instruction of each loop, outer loops first.
      controls: the control bits of each instruction: what it waits for, and how long the next one does.
    """

    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int
    instructions: tuple[str, ...]
    loops: tuple[tuple[int, int], ...]
    controls: tuple[int, ...]

    @property
    def loads(self) -> Counter[str]:
        """Loads from global memory by opcode, such as LDG.E.128."""
        return Counter(opcode for opcode in self.instructions if opcode.startswith("LDG"))

    @property
    def vector_load_share(self) -> float:
        """The share of a thread's loaded bytes that 128-bit loads bring: all of none."""
        widths = {opcode: access_bytes(opcode) for opcode in self.loads}
        total = sum(widths[opcode] * count for opcode, count in self.loads.items())
        wide = sum(widths[opcode] * count for opcode, count in self.loads.items() if widths[opcode] == 16)
        return wide / total if total else 1.0

    def executed(self, trips: Sequence[int]) -> int:
        """Instructions a thread executes when its nested loops run `trips` times, outermost first.

        Outer loops missing from the code were unrolled by the compiler. Loops inside the given ones run once.
        """
        return len(self.trace(trips))

    def trace(self, trips: Sequence[int]) -> list[int]:
        """The numbers of the instructions that a thread executes, in order; `trips` as for `executed`."""
        depth = max(sum(first <= n <= last for first, last in self.loops) for n in range(len(self.instructions)))
        return _unrolled(0, len(self.instructions) - 1, self.loops, trips[max(0, len(trips) - depth) :])


def _unrolled(first: int, last: int, loops: Sequence[tuple[int, int]], trips: Sequence[int]) -> list[int]:
    numbers = []
    while first <= last:
        loop = next((span for span in loops if span[0] == first and span[1] <= last), None)
        if loop is None:
            numbers.append(first)
            first += 1
        else:
            body = _unrolled(*loop, [span for span in loops if span != loop], trips[1:])
            numbers += body * (trips[0] if trips else 1)
            first = loop[1] + 1
    return numbers


def resources(kernel: TritonKernel, device: Device) -> Resources:
    """Compiles a kernel for a device.

    Raises:
      NotImplementedError: the ``triton`` package is not installed.
    """
    _tools()  # raises where there is no Triton
    import triton  # an optional package
    from triton.backends.compiler import GPUTarget

    major, minor = device.compute_capability
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernel.ttir"), Path(folder, "kernel.cubin")
        source.write_text(kernel.code)
        options = {"num_warps": kernel.num_warps, "num_stages": kernel.num_stages, "enable_fp_fusion": True}
        compiled = triton.compile(str(source), target=GPUTarget("cuda", 10 * major + minor, 32), options=options)
        binary.write_bytes(compiled.asm["cubin"])
        return _disassembled(binary, compiled.metadata.shared)


def assemble(code: str, device: Device, shared_bytes: int) -> Resources:
    """Assembles the PTX of a kernel for a device, by the newest assembler that Triton has.

    Raises:
      NotImplementedError: the ``triton`` package is not installed.
    """
    major, minor = device.compute_capability
    *_, assembler = sorted(_tools().glob("ptxas*"))
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(code)
        _run(assembler, f"-arch=sm_{10 * major + minor}{'a' if major >= 9 else ''}", "-o", binary, source)
        found = _disassembled(binary, shared_bytes)
    # Behind the end lies what is done while a barrier is waited for, which branches back.
    end = len(found.instructions) - found.instructions[::-1].index("EXIT")
    return dataclasses.replace(
        found,
        instructions=found.instructions[:end],
        loops=tuple(span for span in found.loops if span[1] < end),
        controls=found.controls[:end],
    )


def _tools() -> Path:
    """The folder of the assembler and its kin."""
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        raise NotImplementedError("Compiling kernels without a GPU needs Triton's own compiler: pip install triton")
    return Path(spec.origin).parent / "backends" / "nvidia" / "bin"


def _disassembled(binary: Path, shared_bytes: int) -> Resources:
    usage = _run(_tools() / "cuobjdump", "-res-usage", binary)
    instructions, loops, controls = _parse(_run(_tools() / "nvdisasm", "-c", "-hex", binary))
    used = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", usage)}
    # Spills live on the stack, like local arrays; only spills are written by local stores.
    spills = sum(access_bytes(opcode) for opcode in instructions if opcode.startswith("STL"))
    return Resources(
        registers=used["REG"],
        spill_bytes=spills,
        stack_bytes=used["STACK"],
        shared_bytes=shared_bytes,
        instructions=instructions,
        loops=loops,
        controls=controls,
    )


_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\s*([^;]*);", re.MULTILINE)


_SECOND_WORD = re.compile(r"^\s+/\* 0x([0-9a-f]{16}) \*/")  # of an instruction, on a line of its own
_CONTROL_BIT = 41  # the lowest one of the second word


def _parse(assembly: str) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Opcodes without padding, loops as the spans of backward branches, and control bits.

    The trap loop after the end is none, nor is a branch back from code after the end, where a barrier is waited for.
    """
    labels, opcodes, controls, branches = {}, [], [], []
    for line in assembly.splitlines():
        if label := re.match(r"^(\.L_\w+):", line):
            labels[label[1]] = len(opcodes)
        elif found := _INSTRUCTION.match(line):
            opcode, operands = found[2], found[3]
            if opcode.split(".")[0] == "BRA" and (target := re.search(r"\.L_\w+", operands)):
                branches.append((len(opcodes), target[0]))
            if not opcode.startswith("NOP"):
                opcodes.append(opcode)
        elif (word := _SECOND_WORD.match(line)) and len(controls) < len(opcodes):
            controls.append(int(word[1], 16) >> _CONTROL_BIT)
    spans = {(labels[target], at) for at, target in branches if target in labels and labels[target] < at}
    return tuple(opcodes), tuple(sorted(spans, key=lambda span: span[0] - span[1])), tuple(controls)


def access_bytes(opcode: str) -> int:
    """Of a lane, by a load or a store."""
    suffixes = opcode.split(".")
    widths = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
    return next((width for suffix, width in widths.items() if suffix in suffixes), 4)


def _run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
