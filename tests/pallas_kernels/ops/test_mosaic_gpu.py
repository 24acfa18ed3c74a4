"""The Mosaic GPU kernels compute the operator, run by Pallas's interpreter of GPUs.

It simulates the copies, the barriers and the shared memory of each block, and raises where a block reads outside of an
array, or what may not have arrived or may be overwritten at that time.
"""

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import compat
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.implementation import Operands, cotangents_of
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels import suite

pytestmark = pytest.mark.skipif(compat.no_mosaic_gpu() is not None, reason=f"the back end {compat.no_mosaic_gpu()}")


def check(arg: ArgSpec, dtypes: suite.DTypes = suite.FLOAT32, **options: int):
    """Asserts that the values are those of the loop, and the same in two runs.

    Args:
      options: of the block, instead of those that are chosen.
    """
    from pallas_kernels.ops.mosaic_gpu import fwd, selection

    x, spatial, channel = arg.arrays(dtype=dtypes)
    block = selection.choose_block(ArgShape.of(x, spatial, channel, arg.spec))
    assert block is not None
    block = dataclasses.replace(block, beyond=0, **options) if options else block
    first, second = (
        fwd.forward(on_device(x), on_device(spatial), on_device(channel), arg.spec, block=block, interpret=simulated())
        for _ in range(2)
    )
    assert_same("y", first, second, arg, dtypes)


def check_cotangents(kernel: Any, arg: ArgSpec, dtypes: suite.DTypes = suite.FLOAT32, **options: int):
    """As `check`, of those that a kernel of the backward pass computes."""
    from pallas_kernels.ops import mosaic_gpu
    from pallas_kernels.ops.mosaic_gpu import blocks, selection

    x, spatial, channel = arg.arrays(dtype=dtypes)
    dy, shape = arg.cotangent(dtype=dtypes), ArgShape.of(x, spatial, channel, arg.spec)
    block = selection.choose_block(blocks.transposed(shape, dy.dtype.itemsize) if kernel == "dx" else shape, kernel)
    assert block is not None
    chosen: dict[Any, Any] = {kernel: dataclasses.replace(block, **options)}
    operands = Operands(*map(on_device, (x, dy, spatial, channel)))
    results = {name: array for name, array in cotangents_of(operands).items() if (name == "x") == (kernel == "dx")}
    runs = [mosaic_gpu.backward(operands, results, arg.spec, chosen=chosen, interpret=simulated()) for _ in range(2)]
    for name, array in runs[0].items():
        assert_same(name, array, runs[1][name], arg, dtypes)


def assert_same(name: str, first: jax.Array, second: jax.Array, arg: ArgSpec, dtypes: suite.DTypes):
    number = ("y", "x", "spatial", "channel").index(name)
    expected = suite.expected(arg, dtypes)[number]
    assert expected is not None
    assert first.dtype == jnp.dtype((dtypes[0], *dtypes)[number])
    suite.assert_close(np.asarray(first), expected, suite.TOLERANCE["float32"], f"{name} of {arg}, {dtypes}")
    assert np.asarray(first).tobytes() == np.asarray(second).tobytes()


def simulated() -> Any:
    gpu: Any = importlib.import_module("jax.experimental.pallas.mosaic_gpu")
    return gpu.InterpretGPUParams(detect_races=True)


def on_device(array: Any) -> Any:
    return None if array is None else jnp.asarray(array)


def widened(arg: ArgSpec) -> ArgSpec:
    """One sample, with channels of 16 bytes in each group: every block is simulated."""
    _, *sizes, channels = arg.x
    return dataclasses.replace(arg, x=(1, *sizes, 4 * channels))


CASES = [widened(arg) for arg in suite.HARD_CASES if arg.spec.scale == 1 and arg.name != "stride_and_dilation"]
EACH_OPTION = (
    "kernel_3",
    "stride_2",
    "dilation_2",
    "add_in_groups",
    "no_spatial_filter_add",
    "rectangular_and_even",
    "padding_past_the_filter",
    "softmax_in_groups",
)


@pytest.mark.parametrize("arg", suite.slow_unless(CASES, EACH_OPTION))
def test_values_equal_the_loop_without_a_race_or_a_read_outside(arg):
    check(arg, columns=1, rows=3, ahead=2)


@pytest.mark.parametrize("arg", suite.slow_unless(CASES, ("one_row",)))
def test_threads_with_several_columns_equal_the_loop(arg):
    check(arg, columns=2, rows=2, ahead=3)


@pytest.mark.parametrize("arg", suite.slow_unless(CASES, ("kernel_3",)))
def test_the_chosen_blocks_equal_the_loop(arg):
    check(arg)


AT_EACH_PIXEL = [
    arg
    for arg in CASES
    if arg.spec.stride == (1, 1) and all(max(a) <= b for a, b in zip(arg.spec.padding, arg.spec.span, strict=True))
]


@pytest.mark.parametrize("arg", suite.slow_unless(AT_EACH_PIXEL, ("kernel_3", "dilation_2", "softmax_in_groups")))
def test_the_cotangent_of_x_equals_the_loop_without_a_race_or_a_read_outside(arg):
    check_cotangents("dx", arg, columns=1, rows=3, ahead=2)


@pytest.mark.parametrize("arg", suite.slow_unless(AT_EACH_PIXEL, ("causal_sequence",)))
def test_the_cotangent_of_x_by_threads_with_several_columns_equals_the_loop(arg):
    check_cotangents("dx", arg, columns=2, rows=2, ahead=3)


NO_PADDING = ((0, 0), (0, 0))


@pytest.mark.parametrize(
    ("arg", "options"),
    [
        (ArgSpec("narrow_dy", (1, 3, 10, 32), FilterSpec((1, 8), padding=NO_PADDING)), {}),
        (ArgSpec("tiles", (1, 1, 8, 128), FilterSpec((1, 16)), 1, False), {"columns": 1, "vector": 4, "channels": 128}),
        pytest.param(
            ArgSpec("groups", (1, 9, 9, 64), FilterSpec(7, padding=NO_PADDING), 16, False), {}, marks=pytest.mark.slow
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_filters_before_a_row_may_lie_before_the_array(arg, options):
    check_cotangents("dx", arg, **options)


@pytest.mark.parametrize(("width", "groups"), [(8, 1), pytest.param(7, 1, marks=pytest.mark.slow), (8, 8)])
def test_the_cotangent_of_x_takes_no_filter_from_beyond_the_image(width, groups):
    from pallas_kernels.ops.mosaic_gpu import dx

    dy, spatial, channel = (
        jnp.ones(shape) for shape in ((2, 3, width, 64), (2, 3, width, 1, groups, 9), (2, 1, 9, 64))
    )
    spatial = spatial.at[0, :, -1].set(jnp.inf).at[0, -1].set(jnp.inf).at[1, :, 0].set(jnp.inf)
    shape = ArgShape.of(dy, spatial, channel, FilterSpec(3))
    found = dx.input_cotangent(dy, spatial, channel, shape, dy.dtype, interpret=simulated())
    # The pixels that no infinite filter reaches: those that read it from beyond the image would be NaN.
    assert jnp.isfinite(found[0, 0, : width - 2]).all()
    assert jnp.isfinite(found[1, :, 2:]).all()


FILTERS = [
    dataclasses.replace(arg, x=(*arg.x[:3], 8 * arg.x[3]))  # at least 32 channels of a group
    for arg in CASES
    if arg.groups and arg.channel and arg.spec.combine == "mul" and arg.spec.taps <= 9
]


@pytest.mark.parametrize(
    "arg", suite.slow_unless(FILTERS, ("kernel_3", "stride_2", "padding_past_the_filter", "filter_norm_stride"))
)
def test_cotangents_of_both_filters_equal_the_loop_without_a_race_or_a_read_outside(arg):
    check_cotangents("dfilters", arg, columns=1, rows=3, ahead=2)


@pytest.mark.slow
@pytest.mark.parametrize("arg", FILTERS, ids=lambda arg: arg.name)
def test_cotangents_of_threads_with_two_columns_equal_the_loop(arg):
    check_cotangents("dfilters", arg, columns=2, rows=2, ahead=3)


def test_cotangents_of_a_group_in_several_blocks_are_their_sum():
    check_cotangents("dfilters", ArgSpec("two_blocks", (1, 3, 5, 256), FilterSpec((1, 3))), columns=1)


def test_what_positions_beyond_the_image_would_read_spoils_no_sum():
    from pallas_kernels.ops.mosaic_gpu import dfilters, selection

    x, spatial, channel = (jnp.ones(shape) for shape in ((1, 3, 7, 32), (1, 3, 7, 1, 1, 9), (1, 1, 9, 32)))
    x = x.at[:, :, -1].set(jnp.inf).at[:, -1].set(jnp.inf)  # the first tap reads neither
    spec = FilterSpec(3)
    block = selection.choose_block(ArgShape.of(x, spatial, channel, spec), "dfilters")
    assert block is not None
    block = dataclasses.replace(block, columns=1, rows=2)
    dy = jnp.ones(x.shape)
    _, found = dfilters.filter_cotangents(x, dy, spatial, channel, spec, block=block, interpret=simulated())
    np.testing.assert_array_equal(found[0, 0, 0], np.full(32, 12.0))  # two rows of six


WIDE = ArgSpec("two_samples", (2, 3, 19, 64), groups=2)
HALF = [dtypes for dtypes in suite.MIXED_DTYPES if "float64" not in dtypes]


@pytest.mark.parametrize(
    "dtypes", [HALF[0], *(pytest.param(dtypes, marks=pytest.mark.slow) for dtypes in HALF[1:])], ids="-".join
)
def test_any_dtypes_are_summed_wide_and_rounded_once(dtypes):
    check(WIDE, dtypes, columns=1)
    check_cotangents("dfilters", WIDE, dtypes, columns=1)
    check_cotangents("dx", WIDE, dtypes, columns=1)


@pytest.mark.slow
@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("width", [4, 6, 8])
def test_filters_of_any_address_are_copied(kernel_size, width):
    arg = ArgSpec("involution", (2, 4, width, 64), FilterSpec(kernel_size), 16, False)
    check(arg, columns=1)
    check_cotangents("dx", arg, columns=1)
