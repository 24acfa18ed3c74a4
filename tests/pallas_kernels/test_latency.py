"""The simulated multiprocessor, on machine code short enough to count by hand."""

import dataclasses
import re

import pytest

from pallas_kernels import aot
from pallas_kernels.aot.machine_code import _parse

NO_BARRIER = 7
MACHINE = aot.Device("small", (9, 0), 1, 1e6, 1e12, 1e12, 10**9, 233472, 0)  # a cycle is a microsecond
LATENCIES = aot.Latencies(l1=40, l2=300, first=400, memory=500, other=20, l1_share=1.0, start=0)


def control(stall: int = 1, result: int = NO_BARRIER, waits: int = 0) -> int:
    """The control bits of an instruction that sets a barrier with its result and waits for some, as a mask."""
    return stall | result << 5 | NO_BARRIER << 8 | waits << 11


def code(*instructions: tuple[str, int], registers: int = 32) -> aot.Resources:
    opcodes, controls = zip(*instructions, strict=True)
    return aot.Resources(registers, 0, 0, 0, opcodes, (), controls)


def predict(kernel: aot.Resources, traffic: aot.Traffic, **changes: float) -> aot.Prediction:
    return aot.predict(kernel, traffic, (), dataclasses.replace(MACHINE, **changes), LATENCIES)


@pytest.mark.parametrize(("warps", "cycles"), [(1, 36), (4, 36), (8, 37), (16, 39), (32, 79)])
def test_warps_of_a_scheduler_hide_each_others_stalls_until_each_cycle_issues(warps: int, cycles: int):
    kernel = code(*[("FADD", control(stall=4))] * 10)
    assert predict(kernel, aot.Traffic(1, warps, 0, 0)).time_us == cycles


def test_integers_issue_every_other_cycle():
    kernel = code(*[("IADD3", control())] * 10)
    assert predict(kernel, aot.Traffic(1, 4, 0, 0)).time_us == 18


def test_a_result_is_waited_for_where_it_is_used():
    load, use = ("LDG.E.128", control(result=0)), ("FADD", control(waits=1))
    kernel = code(load, *[("FMUL", control())] * 3, use)
    cycles = 32 * 16 / 128 + LATENCIES.l1  # of the load, which L1 takes four cycles for
    found = predict(kernel, aot.Traffic(1, 1, 0, 0))
    assert (found.time_us, found.exposed_us) == (cycles, 0)
    missed = predict(kernel, aot.Traffic(1, 1, 512, 0))
    assert missed.time_us == pytest.approx(4 + LATENCIES.memory, abs=1)
    assert missed.exposed_us == pytest.approx(LATENCIES.memory - LATENCIES.l1, abs=1)
    in_l2 = predict(kernel, aot.Traffic(1, 1, 512, 0), l2_cache=512)
    assert in_l2.time_us == pytest.approx(4 + LATENCIES.first, abs=1)


def test_the_time_is_at_least_that_of_the_bytes():
    kernel = code(("LDG.E.128", control(result=0)), ("STG.E.128", control(waits=1)))
    traffic = aot.Traffic(1000, 4, 1000 * 4 * 512, 1000 * 4 * 512)
    bandwidth = 16e6  # bytes a cycle, times the clock
    found = predict(kernel, traffic, bandwidth=bandwidth)
    floor = 1e6 * (traffic.read_bytes + traffic.written_bytes) / (4.3 / 4.8 * bandwidth)
    assert floor <= found.time_us <= 1.1 * floor


def test_registers_limit_the_warps_and_the_last_wave_counts():
    kernel = code(*[("FADD", control(stall=4))] * 10, registers=250)  # 256 of 65,536 for each of 256 threads
    one, two, three = (predict(kernel, aot.Traffic(programs, 4, 0, 0)) for programs in (1, 2, 3))
    assert (one.resident_warps, one.waves, three.waves) == (8, 0.5, 1.5)
    assert (one.time_us, two.time_us, three.time_us) == (36, 37, 73)


def test_control_bits_are_those_of_the_second_word():
    """Of S2R, whose result sets barrier 0, and of SHF, which waits for it; from nvdisasm."""
    assembly = """
        /*0010*/                   S2R R7, SR_TID.X ;                 /* 0x0000000000077919 */
                                                                      /* 0x000e2e0000002100 */
        /*0090*/                   SHF.R.U32.HI R0, RZ, 0x3, R7 ;     /* 0x00000003ff007819 */
                                                                      /* 0x001fc80000011607 */
        /*00a0*/                   NOP ;                              /* 0x0000000000007918 */
                                                                      /* 0x000fc00000000000 */
"""
    opcodes, _, controls = _parse(assembly)
    assert opcodes == ("S2R", "SHF.R.U32.HI")
    assert [bits & ~16 for bits in controls] == [control(stall=7, result=0), control(stall=4, waits=1)]
    assert not _parse(re.sub(r"/\* 0x.*", "", assembly))[2]
