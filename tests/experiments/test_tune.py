"""What the tuner measures on a GPU: one kernel, and only if it is right."""

import dataclasses

import pytest

from experiments import tune
from experiments.benchmarks import gpu_clock
from pallas_kernels.ops import heuristics
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.config import Problem
from pallas_kernels.ops.triton import fwd

ARG = ArgSpec("small", (1, 3, 4, 4))
PROBLEM = Problem.of(*ARG.structs(), ARG.spec)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(gpu_clock, "REPEATS", 1)
    monkeypatch.setattr(gpu_clock, "LAUNCHES", 1)


@pytest.mark.parametrize("which", ["forward", "filters"])
def test_another_cut_gives_the_same_values_and_is_timed(which):
    cut = dataclasses.replace(heuristics.heuristic(PROBLEM, which), rows=1, columns=1, patches=4)
    assert tune.measure_of(ARG, "float32", which, interpret=True)(cut) > 0


def test_a_cut_that_gives_other_values_fails(monkeypatch):
    measure, right = tune.measure_of(ARG, "float32", "forward", interpret=True), fwd.forward
    monkeypatch.setattr(fwd, "forward", lambda *a, **options: 1.001 * right(*a, **options))
    with pytest.raises(ArithmeticError, match="expected the portable implementation's values"):
        measure(heuristics.heuristic(PROBLEM, "forward"))


def test_it_is_refused_on_a_cpu(monkeypatch):
    monkeypatch.setattr("sys.argv", ["tune"])
    with pytest.raises(SystemExit, match="Kernels are tuned on an NVIDIA GPU from Ampere on, here is: cpu"):
        tune.main()
