"""The Mosaic GPU kernels compute the operator, run by Pallas's interpreter of GPUs.

It simulates the copies, the barriers and the shared memory of each block, and raises where a block reads outside of an
array, or what may not have arrived or may be overwritten at that time.
"""

import dataclasses
import importlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import aot, compat, dynamic_filter
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
    from pallas_kernels.ops.mosaic_gpu import blocks, fwd

    x, spatial, channel = arg.arrays(dtype=dtypes)
    block = blocks.choose_block(ArgShape.of(x, spatial, channel, arg.spec))
    assert block is not None
    block = dataclasses.replace(block, **options)
    first, second = (
        fwd.forward(on_device(x), on_device(spatial), on_device(channel), arg.spec, block=block, interpret=simulated())
        for _ in range(2)
    )
    assert_same("y", first, second, arg, dtypes)


def check_filters(arg: ArgSpec, dtypes: suite.DTypes = suite.FLOAT32, **options: int):
    """As `check`, of both filters' cotangents."""
    from pallas_kernels.ops import mosaic_gpu
    from pallas_kernels.ops.mosaic_gpu import blocks

    x, spatial, channel = arg.arrays(dtype=dtypes)
    shape = ArgShape.of(x, spatial, channel, arg.spec)
    block = blocks.choose_block(shape, "dfilters")
    assert block is not None
    block = dataclasses.replace(block, **options)
    operands = Operands(*map(on_device, (x, arg.cotangent(dtype=dtypes), spatial, channel)))
    results = {name: array for name, array in cotangents_of(operands).items() if name != "x"}
    runs = [mosaic_gpu.backward(operands, results, arg.spec, block=block, interpret=simulated()) for _ in range(2)]
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


def reason(arg: ArgSpec) -> str | None:
    """Why the kernel refuses a case."""
    from pallas_kernels.ops.mosaic_gpu import blocks

    x, spatial, channel = arg.structs()
    return blocks.why_not(ArgShape.of(x, spatial, channel, arg.spec), [4])


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


@pytest.mark.slow
@pytest.mark.parametrize("arg", CASES, ids=lambda arg: arg.name)
def test_the_chosen_blocks_equal_the_loop(arg):
    check(arg)


FILTERS = [
    dataclasses.replace(arg, x=(*arg.x[:3], 8 * arg.x[3]))  # at least 32 channels of a group
    for arg in CASES
    if arg.groups and arg.channel and arg.spec.combine == "mul" and arg.spec.taps <= 9
]


@pytest.mark.parametrize(
    "arg", suite.slow_unless(FILTERS, ("kernel_3", "stride_2", "padding_past_the_filter", "filter_norm_stride"))
)
def test_cotangents_of_both_filters_equal_the_loop_without_a_race_or_a_read_outside(arg):
    check_filters(arg, columns=1, rows=3, ahead=2)


@pytest.mark.slow
@pytest.mark.parametrize("arg", FILTERS, ids=lambda arg: arg.name)
def test_cotangents_of_threads_with_two_columns_equal_the_loop(arg):
    check_filters(arg, columns=2, rows=2, ahead=3)


def test_cotangents_of_a_group_in_several_blocks_are_their_sum():
    check_filters(ArgSpec("two_blocks", (1, 3, 5, 256), FilterSpec((1, 3))), columns=1)


def test_what_positions_beyond_the_image_would_read_spoils_no_sum():
    from pallas_kernels.ops.mosaic_gpu import blocks, dfilters

    x, spatial, channel = (jnp.ones(shape) for shape in ((1, 3, 7, 32), (1, 3, 7, 1, 1, 9), (1, 1, 9, 32)))
    x = x.at[:, :, -1].set(jnp.inf).at[:, -1].set(jnp.inf)  # the first tap reads neither
    spec = FilterSpec(3)
    block = blocks.choose_block(ArgShape.of(x, spatial, channel, spec), "dfilters")
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
    check_filters(WIDE, dtypes, columns=1)


@pytest.mark.slow
@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("width", [4, 6, 8])
def test_filters_of_any_address_are_copied(kernel_size, width):
    check(ArgSpec("involution", (2, 4, width, 64), FilterSpec(kernel_size), 16, False), columns=1)


LOWERED = (
    ArgSpec("one_row", (1, 1, 9, 64)),
    ArgSpec("groups_of_4", (2, 8, 8, 64), FilterSpec(3), 16),
    ArgSpec("narrow", (2, 4, 7, 128)),
    ArgSpec("several_tiles", (1, 5, 56, 128)),
    ArgSpec("large_kernel", (1, 7, 7, 64), FilterSpec(7), 1, False),
)
ALL_DTYPES = (suite.FLOAT32, *HALF)


@pytest.mark.parametrize(
    ("arg", "dtypes"),
    [
        pytest.param(arg, dtypes, marks=() if number % len(ALL_DTYPES) == row else pytest.mark.slow)
        for row, arg in enumerate(LOWERED)
        for number, dtypes in enumerate(ALL_DTYPES)
    ],
    ids=lambda value: getattr(value, "name", None) or "-".join(value),
)
def test_what_is_not_refused_is_lowered(arg, dtypes):
    def run(dy, *arrays):
        y, pull_back = jax.vjp(lambda *arrays: arg.call(*arrays, implementation=("mosaic_gpu", "xla")), *arrays)
        return y, pull_back(dy)

    structs = [*arg.structs(dtypes)]
    traced = jax.jit(run).trace(arg.output_struct(dtypes), *structs)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert ("@mosaic_gpu" in text) or arg.name == "groups_of_4", text


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        (ArgSpec("scale", (1, 4, 4, 16), FilterSpec(3, scale=2)), "has no upsampling"),
        (ArgSpec("channels", (1, 4, 4, 6)), "needs channels of a multiple of 16 bytes, got 24"),
        (ArgSpec("groups", (1, 4, 4, 24), FilterSpec(3), 24), "has no block for 24 groups of 1 channels and 9 taps"),
        (ArgSpec("taps", (1, 4, 4, 16), FilterSpec(11)), "has at most 81 taps, got 121"),
        (ArgSpec("both", (1, 9, 9, 16), FilterSpec(3, stride=2, dilation=2)), "no stride and dilation along H at once"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_it_cannot_compute_is_refused_with_the_reason(arg, message):
    assert message in str(reason(arg))


def test_every_call_that_is_not_refused_has_a_block_that_fits():
    from pallas_kernels.ops.mosaic_gpu import blocks

    for channels, groups, kernel_size, stride, side in ((64, 1, 3, 1, 56), (48, 3, 5, 2, 7), (512, 32, 7, 1, 7)):
        spec = FilterSpec(kernel_size, stride=stride)
        shape = ArgShape(spec, 128, side, side, channels, groups, 2, has_spatial=True, has_channel=True)
        block = blocks.choose_block(shape)
        assert block is not None
        assert blocks.shared_bytes(shape, block) <= blocks.SHARED_BYTES
        assert channels % block.channels == 0
        assert block.threads * block.channels == 128 * block.vector
        assert math.gcd(block.channels, channels // groups) in (block.channels, channels // groups)


def test_a_gradient_takes_the_next_implementation_or_names_what_is_missing():
    x, spatial = jnp.ones((1, 4, 8, 16)), jnp.ones((1, 4, 8, 1, 9))

    def lowered(*implementation: str) -> str:
        def loss(x):
            return dynamic_filter(x, spatial, None, implementation=implementation).sum()

        return jax.jit(jax.grad(loss)).trace(x).lower(lowering_platforms=("cuda",)).as_text()

    assert lowered("mosaic_gpu", "triton").count(aot.TRITON_CALL) == 1  # of dx
    with pytest.raises(NotImplementedError, match="has the forward pass and both filters' cotangents; name another"):
        lowered("mosaic_gpu")


def test_a_backward_pass_takes_one_kernel_for_both_filters_and_tritons_for_x():
    arrays = jnp.ones((1, 4, 8, 32)), jnp.ones((1, 4, 8, 1, 9)), jnp.ones((1, 9, 32))

    def loss(*arrays):
        return (dynamic_filter(*arrays, normalize="filter_norm", implementation="mosaic_gpu") ** 2).sum()

    program = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("@mosaic_gpu") == 2
    assert "dynamic_filter_dx" in program


def test_the_forward_pass_is_one_kernel_under_vmap_and_shard_map():
    x, spatial = jnp.ones((2, 4, 8, 16)), jnp.ones((2, 4, 8, 1, 9))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def run(x, spatial):
        return dynamic_filter(x, spatial, None, implementation="mosaic_gpu")

    split = jax.shard_map(run, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    for function, arrays in ((split, (x, spatial)), (jax.vmap(run), (x[:, None], spatial[:, None]))):
        text = jax.jit(function).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
        assert text.count("@mosaic_gpu") == 1, text
