"""A kernel's time as latency bounds it: its machine code, run in order on a model of one multiprocessor.

The instructions carry what the hardware waits for: cycles until the next one, and the results that must have arrived.
Each of four schedulers issues one instruction of a warp a cycle; as many warps are resident as registers and shared
memory allow, and a program starts when another ends. Loads take turns at the L1 cache, and those that miss it at the
memory, which gives each multiprocessor an equal share of its bandwidth. So the predicted time is at least the largest
of both rooflines, and longer by what neither knows: latency that no other warp hides, and the last wave of programs.

Values and addresses are not simulated. How many loads miss follows from the bytes that must come from memory; which
ones is assumed to be every n-th.
"""

import dataclasses
import heapq
import itertools
from collections.abc import Sequence
from typing import NamedTuple

from pallas_kernels.aot.kernel_launches import COPY_SHARE
from pallas_kernels.aot.machine_code import Resources, access_bytes
from pallas_kernels.aot.targets import Device

SCHEDULERS = 4
REGISTERS = 65536  # of a multiprocessor
MAX_WARPS, MAX_PROGRAMS = 64, 32  # resident
L1_BYTES = 128  # per cycle
RESERVED_SHARED = 1024  # bytes of each program


@dataclasses.dataclass(frozen=True)
class Latencies:
    """Cycles from issue to result, and the caches' share of loads.

    Args:
      l1: of a load from the L1 cache.
      l2: of a load from the L2 cache.
      first: of the first load of bytes, where all arrays of the launch fit the L2 cache; it may lie in the far half.
      memory: likewise where they do not, under load.
      other: of other instructions whose results are waited for, such as shuffles and shared memory.
      l1_share: of the loads of bytes that were loaded before, those that L1 still has.
      start: of a program, after another one.
    """

    l1: int = 38
    l2: int = 280
    first: int = 700
    memory: int = 1200
    other: int = 26
    l1_share: float = 0.8
    start: int = 200


LATENCIES = Latencies()
"""`first` and `memory` are fitted to times of an H200 (`experiments/results/gpu`); at rest memory takes 620 cycles."""


class Traffic(NamedTuple):
    """What a launch must do.

    Args:
      programs: of the grid.
      warps: of each program.
      read_bytes: of all inputs once.
      written_bytes: of all outputs once.
    """

    programs: int
    warps: int
    read_bytes: int
    written_bytes: int


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The simulated launch.

    Args:
      resident_warps: of a multiprocessor.
      waves: programs of a multiprocessor, over those that are resident at once.
      bytes_in_flight: of loads of a multiprocessor, on average. By Little's law bandwidth needs 20 to 40 KB.
      exposed_us: of the time, what would be gone if every load came from L1.
      time_us: microseconds of the launch.
    """

    resident_warps: int
    waves: float
    bytes_in_flight: int
    exposed_us: float
    time_us: float


def predict(
    code: Resources, traffic: Traffic, trips: Sequence[int], device: Device, latencies: Latencies = LATENCIES
) -> Prediction:
    """Simulates a launch.

    Args:
      code: of the kernel.
      traffic: of the launch.
      trips: of its nested loops, as for `Resources.executed`.
      device: that it runs on.
      latencies: of the device.
    """
    trace = code.trace(trips)
    run = _Run(code, trace, traffic, device, latencies)
    hidden = dataclasses.replace(latencies, l2=latencies.l1, first=latencies.l1, memory=latencies.l1, l1_share=1.0)
    without = _Run(code, trace, traffic, dataclasses.replace(device, bandwidth=float("inf")), hidden)
    us = 1e6 / device.clock
    return Prediction(
        resident_warps=run.resident * traffic.warps,
        waves=round(run.programs / run.resident, 2),
        bytes_in_flight=round(run.byte_cycles / run.cycles),
        exposed_us=round(us * (run.cycles - without.cycles), 2),
        time_us=round(us * run.cycles, 2),
    )


def predict_copied(
    code: Resources,
    traffic: Traffic,
    trips: Sequence[int],
    device: Device,
    asked_bytes: int,
    latencies: Latencies = LATENCIES,
) -> Prediction:
    """Simulates a launch whose inputs and outputs are bulk copies, which run ahead of the arithmetic.

    Each program waits for its first rows. After that copies and arithmetic overlap, and the longer of both is the time.
    Copies take the bandwidth, or what the bytes that are asked for at a time bring in a memory's latency.

    Args:
      code: of the kernel.
      traffic: of the launch.
      trips: of its nested loops, as for `Resources.executed`.
      device: that it runs on.
      asked_bytes: that a program asks for at a time.
      latencies: of the device.
    """
    trace, bare = code.trace(trips), traffic._replace(read_bytes=0, written_bytes=0)
    latency = _miss_latency(traffic, device, latencies)
    first = dataclasses.replace(latencies, start=latencies.start + latency)
    unbound = dataclasses.replace(device, bandwidth=float("inf"))
    run = _Run(code, trace, bare, unbound, first)
    without = _Run(code, trace, bare, unbound, latencies)
    in_flight = run.resident * asked_bytes
    rate = min(_bytes_per_cycle(device), in_flight / latency)
    moved = (traffic.read_bytes + traffic.written_bytes) / device.multiprocessors / rate
    us, cycles = 1e6 / device.clock, latency + max(run.cycles, moved)
    return Prediction(
        resident_warps=run.resident * traffic.warps,
        waves=round(run.programs / run.resident, 2),
        bytes_in_flight=in_flight,
        exposed_us=round(us * (cycles - without.cycles), 2),
        time_us=round(us * cycles, 2),
    )


def _miss_latency(traffic: Traffic, device: Device, latencies: Latencies) -> int:
    in_l2 = traffic.read_bytes + traffic.written_bytes <= device.l2_cache
    return latencies.first if in_l2 else latencies.memory


def _bytes_per_cycle(device: Device) -> float:
    """Of a multiprocessor: its share of the bandwidth that a copy reaches."""
    return COPY_SHARE * device.bandwidth / device.multiprocessors / device.clock


class _Instruction(NamedTuple):
    stall: int
    result_barrier: int | None
    operand_barrier: int | None
    waits: tuple[int, ...]
    unit: str
    occupies: int  # cycles of the unit
    load_bytes: int  # of a warp, from global memory
    store_bytes: int


class _Run:
    """The cycles of the multiprocessor with the most programs."""

    def __init__(
        self, code: Resources, trace: Sequence[int], traffic: Traffic, device: Device, latencies: Latencies
    ) -> None:
        self.latencies, self.warps = latencies, traffic.warps
        instructions = [_instruction(*both) for both in zip(code.instructions, code.controls, strict=True)]
        self.trace = [instructions[number] for number in trace]
        registers = 32 * traffic.warps * (-(-code.registers // 8) * 8)
        shared = device.shared_memory // (code.shared_bytes + RESERVED_SHARED)
        self.resident = max(1, min(REGISTERS // registers, MAX_WARPS // traffic.warps, MAX_PROGRAMS, shared))
        self.programs = -(-traffic.programs // device.multiprocessors)
        launched = traffic.programs * traffic.warps
        self.miss_share = _share(traffic.read_bytes, launched * sum(one.load_bytes for one in self.trace))
        self.write_share = _share(traffic.written_bytes, launched * sum(one.store_bytes for one in self.trace))
        self.miss_latency = _miss_latency(traffic, device, latencies)
        self.bytes_per_cycle = _bytes_per_cycle(device)
        self.l1_free = self.memory_free = 0.0
        self.missed = self.l2_hits = 0.0
        self.byte_cycles = 0.0
        self.cycles = self._simulate()

    def _simulate(self) -> float:
        schedulers = [0.0] * SCHEDULERS
        units: dict[tuple[int, str], float] = {}
        waiting: list[tuple[float, int, int, int, int, list[float]]] = []
        order, end, started, left = itertools.count(), 0.0, 0, {}

        def start(cycle: float) -> None:
            nonlocal started
            for warp in range(self.warps):
                scheduler = (started * self.warps + warp) % SCHEDULERS
                heapq.heappush(waiting, (cycle, next(order), started, scheduler, 0, [0.0] * 6))
            left[started] = self.warps
            started += 1

        for _ in range(min(self.resident, self.programs)):
            start(0.0)
        while waiting:
            ready, _, program, scheduler, number, barriers = heapq.heappop(waiting)
            one = self.trace[number]
            unit = scheduler, one.unit
            issued = max(ready, schedulers[scheduler], units.get(unit, 0.0))
            schedulers[scheduler], units[unit] = issued + 1, issued + one.occupies
            operands_read, result = self._finish(one, issued)
            if one.result_barrier is not None:
                barriers[one.result_barrier] = max(barriers[one.result_barrier], result)
            if one.operand_barrier is not None:
                barriers[one.operand_barrier] = max(barriers[one.operand_barrier], operands_read)
            if number + 1 < len(self.trace):
                waits = self.trace[number + 1].waits
                ready = max([issued + max(one.stall, 1), *(barriers[barrier] for barrier in waits)])
                heapq.heappush(waiting, (ready, next(order), program, scheduler, number + 1, barriers))
                continue
            end, left[program] = max(end, issued), left[program] - 1
            if not left[program] and started < self.programs:
                start(issued + self.latencies.start)
        return max(end, self.memory_free)

    def _finish(self, one: _Instruction, issued: float) -> tuple[float, float]:
        """The cycles at which an instruction has read its operands, and at which its result is there."""
        other = self.latencies.other
        if one.unit != "memory":
            return issued + other / 2, issued + other
        num_bytes = one.load_bytes + one.store_bytes
        self.l1_free = max(self.l1_free, issued) + max(1.0, num_bytes / L1_BYTES)
        operands_read = self.l1_free + other / 2
        if one.store_bytes:
            self.memory_free = max(self.memory_free, self.l1_free)
            self.memory_free += one.store_bytes * self.write_share / self.bytes_per_cycle
        if not one.load_bytes:
            return operands_read, self.l1_free + other
        self.missed += self.miss_share
        if self.missed >= 1:
            self.missed -= 1
            self.memory_free = max(self.memory_free, self.l1_free) + one.load_bytes / self.bytes_per_cycle
            result = self.memory_free + self.miss_latency
        else:
            self.l2_hits += 1 - self.latencies.l1_share
            in_l2 = self.l2_hits >= 1
            self.l2_hits -= in_l2
            result = self.l1_free + (self.latencies.l2 if in_l2 else self.latencies.l1)
        self.byte_cycles += one.load_bytes * (result - issued)
        return operands_read, result


_HALF_RATE = 2
_UNITS = {
    **dict.fromkeys(("FFMA", "FADD", "FMUL"), ("float", 1)),
    **dict.fromkeys(("FFMA2", "FADD2", "FMUL2"), ("float", 2)),  # of pairs, on Blackwell
    "MUFU": ("special", 8),
    "IMAD": ("multiply", _HALF_RATE),
    **dict.fromkeys(("LDG", "STG", "LDS", "STS", "LDL", "STL", "LDC", "SHFL", "S2R", "RED", "ATOMG"), ("memory", 1)),
    **dict.fromkeys(("BRA", "EXIT", "BAR", "BSSY", "BSYNC"), ("branch", 1)),
}


def _instruction(opcode: str, control: int) -> _Instruction:
    """From an opcode and its control bits: 4 of stall cycles, 1 not used here, 3 and 3 of barriers, 6 of waits."""
    name = opcode.split(".")[0]
    unit, occupies = _UNITS.get(name, ("uniform", 1) if name.startswith("U") else ("integer", _HALF_RATE))
    num_bytes = 32 * access_bytes(opcode)
    result, operand = control >> 5 & 7, control >> 8 & 7
    return _Instruction(
        stall=control & 15,
        result_barrier=result if result < 6 else None,
        operand_barrier=operand if operand < 6 else None,
        waits=tuple(barrier for barrier in range(6) if control >> 11 & 1 << barrier),
        unit=unit,
        occupies=occupies,
        load_bytes=num_bytes if name == "LDG" else 0,
        store_bytes=num_bytes if name == "STG" else 0,
    )


def _share(part: int, whole: int) -> float:
    return min(1.0, part / whole) if whole else 0.0
