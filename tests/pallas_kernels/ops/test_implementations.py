"""Each implementation on the shared suite: against a float64 loop, value and three cotangents."""

import pytest
from hypothesis import given, settings

from pallas_kernels.ops import xla
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels import suite

OPERATORS = {
    "reference": suite.by_name("reference"),
    "xla": suite.by_name("xla"),
}

every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


@every_operator
@pytest.mark.parametrize("arg", suite.HARD_CASES, ids=lambda arg: arg.name)
def test_value_and_cotangents_equal_the_loop(operator, arg):
    suite.check(operator, arg)


@pytest.mark.parametrize("operator", [pytest.param("reference", marks=pytest.mark.slow), "xla"])
@pytest.mark.parametrize("arg", suite.LARGE_KERNELS, ids=lambda arg: arg.name)
def test_large_kernels_equal_the_loop(operator, arg):
    suite.check(OPERATORS[operator], arg)


@every_operator
@pytest.mark.parametrize("dtypes", suite.MIXED_DTYPES, ids="-".join)
def test_any_dtypes_are_summed_wide_and_rounded_once(operator, dtypes):
    suite.check(operator, suite.ArgSpec("dtypes", (2, 5, 4, 6), FilterSpec(3), groups=2), dtypes)


@every_operator
@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(drawn=suite.arg_specs())
def test_any_options_equal_the_loop(operator, drawn):
    suite.check(operator, *drawn)


def test_an_implementation_that_has_no_name_runs_too():
    suite.check(suite.by_module(xla), suite.ArgSpec("small", (1, 3, 4, 2)))
