"""Autotuning measures one kernel on a GPU, and only if its values are right."""

import dataclasses

import pytest

from experiments import tune
from experiments.benchmarks import gpu_clock
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.heuristics import heuristic_config
from pallas_kernels.ops.triton import fwd

ARG = ArgSpec("small", (1, 3, 4, 4))
SHAPE = ArgShape.of(*ARG.structs(), ARG.spec)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(gpu_clock, "REPEATS", 1)
    monkeypatch.setattr(gpu_clock, "LAUNCHES", 1)


@pytest.mark.parametrize("kernel", ["fwd", "dfilters"])
def test_another_config_gives_the_same_values_and_is_timed(kernel):
    config = dataclasses.replace(heuristic_config(SHAPE, kernel), tile_h=1, tile_w=1, block_patches=4)
    assert tune.measure_of(ARG, "float32", kernel, interpret=True)(config) > 0


def test_a_config_with_other_values_fails(monkeypatch):
    measure, right = tune.measure_of(ARG, "float32", "fwd", interpret=True), fwd.forward
    monkeypatch.setattr(fwd, "forward", lambda *a, **options: 1.001 * right(*a, **options))
    with pytest.raises(ArithmeticError, match="expected the portable implementation's values"):
        measure(heuristic_config(SHAPE, "fwd"))


def test_it_is_refused_on_a_cpu(monkeypatch):
    monkeypatch.setattr("sys.argv", ["tune"])
    with pytest.raises(SystemExit, match="Kernels are tuned on an NVIDIA GPU from Ampere on, here is: cpu"):
        tune.main()
