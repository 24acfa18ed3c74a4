"""The tuner keeps the fastest cut that works, and the operator then uses it."""

import dataclasses
import math

import pytest

from pallas_kernels import aot
from pallas_kernels.ops import heuristics
from pallas_kernels.ops.arg_specs import ARG_SPECS
from pallas_kernels.ops.autotune import candidates, tune
from pallas_kernels.ops.config import Problem

ARG = ARG_SPECS["resnet50_56x56x128_stride2"]
PROBLEM = Problem.of(*ARG.structs("bfloat16"), ARG.spec)
FIRST, *OTHERS = candidates(PROBLEM, "input")


def test_candidates_start_with_the_heuristic_and_are_cuts_that_the_kernel_can_have():
    assert heuristics.heuristic(PROBLEM, "input") == FIRST
    assert len({FIRST, *OTHERS}) == len(OTHERS) + 1 > 10
    for cut in OTHERS:
        assert cut.rows % 2 == cut.columns % 2 == 0  # the stride
        assert cut.patches * cut.channels == cut.warps * 32 * PROBLEM.lanes


def test_the_fastest_wins_and_those_that_fail_are_passed_over():
    def measure(cut):
        if cut == FIRST:
            raise RuntimeError("out of resources")
        if cut.warps == 4:
            raise ArithmeticError("wrong")
        return math.nan if cut == OTHERS[0] else 1.0 + (cut != OTHERS[5])

    found = tune(PROBLEM, "input", measure)
    assert (found.best, found.seconds) == (OTHERS[5], 1.0)
    assert found.tried == len(OTHERS) + 1
    assert math.isnan(found.heuristic_seconds)
    assert tune(PROBLEM, "input", lambda cut: 2.0 if cut == FIRST else 1.0).heuristic_seconds == 2.0
    assert found.failed == 1 + sum(cut.warps == 4 for cut in OTHERS)


def test_where_every_cut_fails_it_says_so():
    def measure(cut):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match=r"All .* cuts of the input kernel failed"):
        tune(PROBLEM, "input", measure)


def test_a_measured_cut_is_used_on_its_device_only_and_joins_the_older(tmp_path, monkeypatch):
    monkeypatch.setattr(heuristics, "TUNED", tmp_path)
    heuristics.measured.cache_clear()
    h200, a100 = aot.DEVICES["h200"], aot.DEVICES["a100"]
    other = dataclasses.replace(PROBLEM, batch=7)
    heuristics.write_measured(h200.name, {(other, "input"): OTHERS[1]})
    heuristics.write_measured(h200.name, {(PROBLEM, "input"): OTHERS[0]})
    assert [file.name for file in tmp_path.iterdir()] == ["nvidia_h200.json"]
    with aot.one_device(h200):
        assert heuristics.choose(PROBLEM, "input") == OTHERS[0]
        assert heuristics.choose(other, "input") == OTHERS[1]
        assert heuristics.choose(PROBLEM, "forward") == heuristics.heuristic(PROBLEM, "forward")
    with aot.one_device(a100):
        assert heuristics.choose(PROBLEM, "input") == FIRST
    heuristics.measured.cache_clear()


@pytest.mark.parametrize("content", ['[{"kernel": "forward"', "{}", '[{"kernel": "forward"}]', "3"])
def test_a_file_of_something_else_is_passed_over_with_a_warning_and_never_overwritten(
    tmp_path, monkeypatch, caplog, content
):
    monkeypatch.setattr(heuristics, "TUNED", tmp_path)
    heuristics.measured.cache_clear()
    h200 = aot.DEVICES["h200"]
    file = tmp_path / "nvidia_h200.json"
    file.write_text(content)
    with aot.one_device(h200):
        assert heuristics.choose(PROBLEM, "input") == FIRST
    assert f"{file} does not hold cuts" in caplog.text
    with pytest.raises(ValueError, match="does not hold cuts"):
        heuristics.write_measured(h200.name, {(PROBLEM, "input"): FIRST})
    assert file.read_text() == content
    heuristics.measured.cache_clear()


def test_a_file_of_cuts_that_a_kernel_cannot_have_is_passed_over_too(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(heuristics, "TUNED", tmp_path)
    h200 = aot.DEVICES["h200"]
    heuristics.write_measured(h200.name, {(PROBLEM, "input"): dataclasses.replace(FIRST, rows=3)})
    with aot.one_device(h200):
        assert heuristics.choose(PROBLEM, "input") == FIRST
    assert "`rows` and `columns` must be multiples of 2" in caplog.text
    heuristics.measured.cache_clear()
