"""Exponents of cost: of rows, and the rows themselves at sizes that take no time."""

import numpy as np
import pytest

from experiments.benchmarks import scaling
from experiments.benchmarks.scaling import AXES, THEORY, Exponent, Sizes


def rows(time: float, operations: float, axis: str = "K") -> list[dict]:
    common = {"implementation": "best", "pass": "forward", "axis": axis}
    sizes = (3, 5, 7, 9)
    return [
        common | {"size": str(n), "median_ms": str(n**time), "operations": n**operations, "peak_bytes": 7 * n}
        for n in sizes
    ]


def test_exponents_are_those_of_the_rows():
    [found] = scaling.exponents([*rows(2.05, 2), rows(9, 9)[0] | {"implementation": "unfold"}])
    assert (found.axis, found.which, found.low, found.high, found.theory) == ("K", "forward", 3, 9, 2)
    assert found.time == pytest.approx(2.05)
    assert found.operations == pytest.approx(2)
    assert found.memory == pytest.approx(1)
    assert found.error == pytest.approx(0, abs=1e-6)
    assert found.as_expected
    assert scaling.note(found) == ""


def test_where_time_grows_unlike_theory_the_rate_of_operations_is_the_reason():
    [found] = scaling.exponents(rows(2.5, 2))
    assert not found.as_expected
    low, high = (f"{3**2 / 3**2.5 / 1e6:.1f}", f"{9**2 / 9**2.5 / 1e6:.1f}")
    assert scaling.note(found) == f"the rate falls from {low} to {high} G operations/s"
    assert "the rate falls" in scaling.to_table(rows(2.5, 2))


def test_the_error_of_an_exponent_is_that_of_least_squares():
    x, y = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 2.5, 3.5, 9.0])
    (expected, _), covariance = np.polyfit(np.log(x), np.log(y), 1, cov="unscaled")
    residuals = np.log(y) - np.polyval(np.polyfit(np.log(x), np.log(y), 1), np.log(x))
    error = np.sqrt(covariance[0, 0] * (residuals @ residuals) / 2)
    assert scaling.slope(x, y) == (pytest.approx(expected, abs=1e-6), pytest.approx(error, abs=1e-6))


def test_each_axis_changes_one_size_and_arrays_fit_the_caches():
    assert AXES.keys() == THEORY.keys()
    for axis, points in AXES.items():
        values = [scaling._size(axis, point) for point in points]
        assert values == sorted({*values})
        assert len(values) >= 4
        others = {tuple(scaling._size(other, point) for other in AXES if other != axis) for point in points}
        assert len(others) == 1
        assert all(1.5e6 < 4 * np.prod(point.arg().x) < 14e6 for point in points)


def test_each_size_has_a_row_for_each_implementation_and_its_operations_grow_as_theory_has_it():
    axes = {"K": [Sizes(1, 6, 8, K=3), Sizes(1, 6, 8, K=5)], "groups": [Sizes(1, 4, 8, K=1, G=2)]}
    found = scaling.measure(axes, rounds=1)
    keys = [(row["pass"], row["axis"], row["implementation"], row["size"]) for row in found]
    names = [("K", name, size) for name in ("best", "unfold", "depthwise") for size in (3, 5)] + [("groups", "best", 2)]
    assert keys == [(which, *name) for which in ("forward", "forward_backward") for name in names]
    assert all(row["median_ms"] > 0 and row["peak_bytes"] > 0 for row in found)
    of_3, of_5 = (row["operations"] for row in found[:2])
    assert of_5 / of_3 == pytest.approx(25 / 9, rel=0.1)
    assert isinstance(next(scaling.exponents(found)), Exponent)
