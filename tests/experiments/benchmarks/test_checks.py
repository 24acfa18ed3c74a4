"""The checks of the GPU suite find wrong values, NaN and reads beyond an array."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import checks
from experiments.benchmarks.peers import with_cotangents
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.heuristics import backward_kernels
from pallas_kernels.tuning.measure import UNITS, error_share

SMALL = ArgSpec("small", (1, 4, 5, 4))


def compiled(dtype: str) -> Any:
    return jax.jit(with_cotangents(lambda *inputs: SMALL.call(*inputs, implementation="xla")))


@pytest.mark.parametrize(
    "dtype", [pytest.param(dtype, marks=() if dtype == "float32" else pytest.mark.slow) for dtype in UNITS]
)
def test_right_values_and_cotangents_pass(dtype: str):
    row = checks.check(compiled(dtype), SMALL, dtype)
    assert row["passed"] is True
    assert row["same_bits_twice"] is True
    assert 0 < row["worst_share_of_tolerance"] <= 1


@pytest.mark.parametrize("wrong", range(4), ids=["y", "dx", "dspatial", "dchannel"])
def test_one_wrong_result_fails(wrong: int):
    right = compiled("float32")

    def run(*arrays: Any) -> list[jax.Array]:
        return [value * jnp.float32(1.001) if n == wrong else value for n, value in enumerate(right(*arrays))]

    row = checks.check(run, SMALL, "float32")
    assert row["passed"] is False
    assert row["worst_share_of_tolerance"] > 1


def test_other_bits_in_the_second_run_fail():
    right, calls = compiled("float32"), []

    def run(*arrays: Any) -> list[jax.Array]:
        calls.append(None)
        return [value + jnp.float32(1e-7 * len(calls)) for value in right(*arrays)]

    row = checks.check(run, SMALL, "float32")
    assert (row["same_bits_twice"], row["passed"]) == (False, False)


@pytest.mark.parametrize("dtype", UNITS)
def test_every_kernel_is_checked(dtype: str):
    shapes = [ArgShape.of(*arg.structs(dtype), arg.spec) for arg in checks.CHECKED]
    assert {kernel for shape in shapes for kernel in backward_kernels(shape)} == {
        "dx",
        "dspatial",
        "dchannel",
        "dfilters",
    }


def test_poisoned_kernels_find_nan_behind_their_arrays():
    x = jnp.ones((1, 2, 2, 3))
    with checks.poisoned():
        for module in (checks.fwd, checks.bwd):
            rows, spatial, _ = module.pixel_rows(x, None, None)
            assert rows is not None
            assert rows.shape == (5, 3)
            assert jnp.isnan(rows[4]).all()
            assert spatial is None
    [rows, *_] = checks.fwd.pixel_rows(x, None, None)
    assert rows is not None
    assert rows.shape == (4, 3)


def test_the_tolerance_is_half_a_unit_per_rounding_and_a_share_of_the_largest_value():
    expected = np.array([1.0, 100.0])
    off = expected + np.array([2.0**-8 + 1e-3, 0.0])
    assert checks.share_of_tolerance(off, expected, "bfloat16") == pytest.approx(1)
    assert error_share(off, expected, "bfloat16", roundings=2) < 1
    assert checks.share_of_tolerance(np.array([np.nan, 100.0]), expected, "float32") == np.inf
