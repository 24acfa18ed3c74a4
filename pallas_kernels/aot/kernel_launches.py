"""The kernels that a compiled program launches, with the bytes, the arithmetic and the origin of each."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

from pallas_kernels.aot.programs import TRITON_CALL
from pallas_kernels.aot.targets import Device

# Measured on an H200: a copy reaches 4.3 of 4.8 TB/s, a large matrix product about 600 of 989 TFLOP/s.
COPY_SHARE, MATMUL_SHARE = 4.3 / 4.8, 600 / 989
LAUNCH_US = 1.8

# Instructions that launch nothing. The end of an asynchronous instruction is counted with its start.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
# Instructions of a fusion that read all of an operand, however few of their results are used.
_WHOLE = {"dot", "convolution", "reduce-window", "select-and-scatter", "scatter", "sort"}
_SLICES = {"slice", "dynamic-slice", "gather"}
_LIBRARIES = ("__cublas", "__cudnn")

_Array = tuple[str, tuple[int, ...]]  # dtype and shape


@dataclasses.dataclass(frozen=True)
class Launch:
    """One kernel of a compiled program.

    Args:
      name: of the instruction.
      kind: the target of a custom call, else the opcode, such as "fusion" or "copy".
      num_bytes: read and written; of an operand that is only sliced, the slice; without a library's workspace.
      flops: of matrix products and convolutions by a library; 0 for other kernels.
      stacks: for each traced operation inside, the names of the Python functions that made it, innermost first.
      triton_name: of a Triton kernel of the program's, its name; else empty.
    """

    name: str
    kind: str
    num_bytes: int
    flops: int
    stacks: tuple[tuple[str, ...], ...]
    triton_name: str = ""

    def roofline_us(self, device: Device) -> float:
        """Microseconds on a device: those of its bytes, those of its arithmetic or `LAUNCH_US`, the largest."""
        memory = self.num_bytes / (COPY_SHARE * device.bandwidth)
        return max(1e6 * memory, 1e6 * self.flops / (MATMUL_SHARE * device.matmul_rate), LAUNCH_US)


def launches(text: str) -> list[Launch]:
    """The kernels of a program, in the order of its text. The body of a loop counts as often as it is known to run.

    Args:
      text: `compiled.as_text()`.

    Raises:
      ValueError: the text has no entry computation.
    """
    program = _Program(text)
    return list(program.launches(program.entry))


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    opcode: str
    arrays: tuple[_Array, ...]  # the result, or the parts of a tuple
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def num_bytes(self) -> int:
        return sum(map(_num_bytes, self.arrays))

    @property
    def num_elements(self) -> int:
        return sum(math.prod(shape) for _, shape in self.arrays)

    def attribute(self, pattern: str) -> str:
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""


class _Program:
    def __init__(self, text: str):
        self.computations: dict[str, dict[str, _Instruction]] = {}
        self.entry = ""
        self.tables: dict[str, dict[str, str]] = collections.defaultdict(dict)  # of files, functions and stack frames
        table = instructions = None
        for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
            if header := re.match(r"(ENTRY )?%([\w.\-]+) .*\{$", line):
                instructions = self.computations[header[2]] = {}
                self.entry = header[2] if header[1] else self.entry
            elif instructions is not None and (found := re.match(r"\s+(ROOT )?%([\w.\-]+) = (.*)$", line)):
                instructions[found[2]] = _parse(found[2], found[3], is_root=found[1] is not None)
            elif instructions is None and re.fullmatch(r"[A-Z]\w+", line):
                table = self.tables[line]
            elif table is not None and (row := re.match(r"(\d+) (.*)", line)):
                table[row[1]] = row[2]
        if not self.entry:
            raise ValueError("`text` must be that of a compiled program, with a line that begins with ENTRY; got none.")

    def launches(self, computation: str) -> Iterator[Launch]:
        instructions = self.computations[computation]
        for instruction in instructions.values():
            opcode = instruction.opcode
            if opcode == "while":
                trips = instruction.attribute(r'"known_trip_count":\{"n":"(\d+)"') or "1"
                yield from list(self.launches(instruction.attribute(r"body=%([\w.\-]+)"))) * int(trips)
            elif opcode in ("call", "conditional"):  # of a conditional, the first branch
                called = r"(?:to_apply=|branch_computations=\{|true_computation=)%([\w.\-]+)"
                yield from self.launches(instruction.attribute(called))
            elif opcode not in _FREE and not opcode.endswith("-done"):
                yield self._launch(instruction, [instructions[name] for name in instruction.operands])

    def _launch(self, instruction: _Instruction, operands: Sequence[_Instruction]) -> Launch:
        inside = self.computations.get(instruction.attribute(r"calls=%([\w.\-]+)"), {})
        kind = instruction.attribute(r'custom_call_target="([^"]+)"') or instruction.opcode
        if kind == "fusion":
            num_bytes = _fusion_bytes(inside)
        elif kind in _SLICES:
            num_bytes = 2 * instruction.num_bytes
        else:
            results = instruction.arrays[:1] if kind.startswith(_LIBRARIES) else instruction.arrays
            num_bytes = sum(map(_num_bytes, results)) + sum(operand.num_bytes for operand in operands)
        frames = [traced.attribute(r"stack_frame_id=(\d+)") for traced in (*inside.values(), instruction)]
        stacks = tuple(self._stack(frame) for frame in (frames[:-1] if inside else frames) if frame)
        triton_name = instruction.attribute(r'\bname = "([^"]+)"') if kind == TRITON_CALL else ""
        return Launch(instruction.name, kind, num_bytes, _flops(kind, instruction, operands), stacks, triton_name)

    def _stack(self, frame: str) -> tuple[str, ...]:
        frames, names = self._frames, []
        while frame in frames:
            name, frame = frames[frame]
            names.append(name)
        return tuple(names)

    @functools.cached_property
    def _frames(self) -> dict[str, tuple[str, str]]:
        """The function and the parent of each stack frame."""
        functions, locations = self.tables["FunctionNames"], self.tables["FileLocations"]
        rows = {frame: re.findall(r"=(\d+)", row) for frame, row in self.tables["StackFrames"].items()}
        # The first frame has no parent. Versions of XLA differ in the number that they print for none, 0 or 1.
        none = int(rows["1"][1]) if rows else 0
        return {
            frame: (functions[re.findall(r"=(\d+)", locations[location])[1]].strip('"'), str(int(parent) - none))
            for frame, (location, parent) in rows.items()
        }


def _parse(name: str, text: str, *, is_root: bool) -> _Instruction:
    result, text = _split(text) if text.startswith("(") else text.split(" ", 1)
    opcode, text = text.strip().split("(", 1)
    operands, attributes = _split(f"({text}")
    arrays = tuple(
        (dtype, tuple(int(size) for size in sizes.split(",") if size))
        for dtype, sizes in re.findall(r"\b([a-z]\w*)\[([\d,]*)\]", result)
    )
    return _Instruction(name, opcode, arrays, tuple(re.findall(r"%([\w.\-]+)", operands)), attributes, is_root)


def _split(text: str) -> tuple[str, str]:
    """The leading parenthesis, and what follows it."""
    depth = 0
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return text[: position + 1], text[position + 1 :]
    raise ValueError(f"A parenthesis must be closed in the text of a compiled program, got {text[:80]!r}.")


def _num_bytes(array: _Array) -> int:
    dtype, shape = array
    bits = re.search(r"\d+", dtype)
    return math.prod(shape) * (int(bits[0]) if bits else 8 * (dtype == "pred")) // 8


def _fusion_bytes(inside: Mapping[str, _Instruction]) -> int:
    """What a fused computation reads of its parameters and writes.

    Walks from the results to the parameters. Of its operands an instruction needs as many elements as are needed of
    itself; a reduction, what is reduced to those. Of an array that is updated in place the update alone is written.
    """
    needed: collections.Counter[str] = collections.Counter()
    written = 0
    for instruction in reversed([*inside.values()]):
        if instruction.is_root:
            is_tuple = instruction.opcode == "tuple"
            for result in [inside[name] for name in instruction.operands] if is_tuple else [instruction]:
                updated = inside[result.operands[1]] if result.opcode == "dynamic-update-slice" else result
                written += updated.num_bytes
                needed[result.name] = result.num_elements
            if is_tuple:
                continue
        used = min(needed[instruction.name], instruction.num_elements)
        for position, operand in enumerate(inside[name] for name in instruction.operands):
            if instruction.opcode in _WHOLE:
                used_of_operand = operand.num_elements
            elif instruction.opcode == "reduce":
                used_of_operand = math.ceil(operand.num_elements * used / max(instruction.num_elements, 1))
            elif instruction.opcode == "dynamic-update-slice":
                used_of_operand = operand.num_elements if position else 0
            else:
                used_of_operand = used
            needed[operand.name] += used_of_operand
    parameters = [instruction for instruction in inside.values() if instruction.opcode == "parameter"]
    shares = [min(1.0, needed[parameter.name] / max(parameter.num_elements, 1)) for parameter in parameters]
    read = sum(share * parameter.num_bytes for share, parameter in zip(shares, parameters, strict=True))
    return math.ceil(read) + written


def _flops(kind: str, call: _Instruction, operands: Sequence[_Instruction]) -> int:
    if not kind.startswith(_LIBRARIES):
        return 0
    result, (left, right) = call.arrays[0][1], [operand.arrays[0][1] for operand in operands[:2]]
    if kind.startswith("__cublas"):
        axes = re.findall(r"\d+", call.attribute(r'"lhs_contracting_dimensions":\[([^\]]*)\]'))
        return 2 * math.prod(result) * math.prod(left[int(axis)] for axis in axes)
    # Output and kernel of the convolution, or of the one that this is a derivative of.
    backward = {"__cudnn$convBackwardInput": (left, right), "__cudnn$convBackwardFilter": (right, result)}
    output, kernel = backward.get(kind, (result, right))
    features = call.attribute(r"dim_labels=\w+_(\w+)->").index("o")
    return 2 * math.prod(output) * math.prod(kernel) // kernel[features]
