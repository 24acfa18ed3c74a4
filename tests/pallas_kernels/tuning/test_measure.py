"""Measuring times one kernel, and accepts a config only if its values are right."""

import dataclasses

import pytest

from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.config import ArgShape, KernelName
from pallas_kernels.ops.heuristics import heuristic_config
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton import fwd
from pallas_kernels.tuning.measure import measure_of

ARG = ArgSpec("small", (1, 3, 4, 4), FilterSpec((1, 3)))
SHAPE = ArgShape.of(*ARG.structs(), ARG.spec)


@pytest.mark.parametrize("kernel", ["fwd", "dfilters"])
def test_another_config_gives_the_same_values_and_is_timed(kernel: KernelName):
    config = dataclasses.replace(heuristic_config(SHAPE, kernel), tile_h=1, tile_w=1, block_patches=4)
    [seconds] = measure_of(ARG, "float32", interpret=True, rounds=1)([(kernel, config)])
    assert isinstance(seconds, float)
    assert seconds > 0


def test_a_config_that_gives_other_values_fails(monkeypatch: pytest.MonkeyPatch):
    measure, right = measure_of(ARG, "float32", interpret=True, rounds=1), fwd.forward
    monkeypatch.setattr(fwd, "forward", lambda *a, **options: 1.001 * right(*a, **options))
    [error] = measure([("fwd", heuristic_config(SHAPE, "fwd"))])
    assert isinstance(error, ArithmeticError)
    assert str(error).startswith("expected the portable implementation's values")


def test_candidates_that_time_runs_out_for_are_not_measured():
    measure = measure_of(ARG, "float32", interpret=True, rounds=1, out_of_time=lambda: True)
    [error] = measure([("fwd", heuristic_config(SHAPE, "fwd"))])
    assert isinstance(error, TimeoutError)
