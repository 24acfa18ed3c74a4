"""Each implementation on the shared suite: against a float64 loop, value and three cotangents."""

from typing import Any

import pytest
from hypothesis import given, settings

from pallas_kernels.ops import xla
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels import suite

reference, portable = suite.by_name("reference"), suite.by_name("xla")

# The reference is a loop over the taps: these reach each of its lines, and its automatic derivative follows.
OF_REFERENCE = ("kernel_3", "stride_and_dilation", "add_in_groups", "no_channel_filter_add", "scale_no_spatial_filter")

DRAWN: dict[str, Any] = {"derandomize": True, "deadline": None, "database": None}
# All narrow, each another one, and float64 of one filter alone, in which all is summed.
DTYPES_OF_EACH_KIND = (
    ("bfloat16", "bfloat16", "bfloat16"),
    ("float16", "float32", "bfloat16"),
    ("float32", "float64", "bfloat16"),
)
DTYPES = suite.ArgSpec("dtypes", (2, 5, 4, 6), FilterSpec(3), groups=2)


@pytest.mark.parametrize("arg", suite.slow_unless([*suite.HARD_CASES, *suite.LARGE_KERNELS]))
def test_the_portable_implementation_equals_the_loop(arg):
    suite.check(portable, arg)


@pytest.mark.parametrize("arg", suite.slow_unless([*suite.HARD_CASES, *suite.LARGE_KERNELS], OF_REFERENCE))
def test_the_reference_equals_the_loop(arg):
    suite.check(reference, arg)


@pytest.mark.parametrize(
    "dtypes",
    [
        pytest.param(dtypes, id="-".join(dtypes), marks=() if dtypes in DTYPES_OF_EACH_KIND else pytest.mark.slow)
        for dtypes in suite.MIXED_DTYPES
    ],
)
def test_any_dtypes_are_summed_wide_and_rounded_once(dtypes):
    suite.check(portable, DTYPES, dtypes)


@pytest.mark.parametrize(
    "dtypes",
    [
        pytest.param(("bfloat16", "float32", "float32"), marks=pytest.mark.slow),
        ("float32", "float64", "bfloat16"),
    ],
    ids="-".join,
)
def test_the_reference_sums_wide_and_rounds_once(dtypes):
    suite.check(reference, DTYPES, dtypes)


@settings(max_examples=4, **DRAWN)
@given(drawn=suite.arg_specs())
def test_any_options_equal_the_loop(drawn):
    suite.check(portable, *drawn)


@pytest.mark.slow
@pytest.mark.parametrize("operator", [reference, portable], ids=["reference", "xla"])
@settings(max_examples=100, **DRAWN)
@given(drawn=suite.arg_specs())
def test_many_options_equal_the_loop(operator, drawn):
    suite.check(operator, *drawn)


def test_an_implementation_that_has_no_name_runs_too():
    suite.check(suite.by_module(xla), suite.ArgSpec("small", (1, 3, 4, 2)))
