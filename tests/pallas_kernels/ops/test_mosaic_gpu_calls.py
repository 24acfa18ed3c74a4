"""The calls that the Mosaic GPU kernels take: how they are lowered, and what they refuse."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels import aot, compat, dynamic_filter, local_correlation
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels import suite

pytestmark = pytest.mark.skipif(compat.no_mosaic_gpu() is not None, reason=f"the back end {compat.no_mosaic_gpu()}")


def reason(arg: ArgSpec, kernel: Any = "fwd") -> str | None:
    """Why a kernel refuses a case."""

    from pallas_kernels.ops.mosaic_gpu import selection

    x, spatial, channel = arg.structs()
    return selection.why_not(ArgShape.of(x, spatial, channel, arg.spec), [4], kernel)


LOWERED = (
    ArgSpec("one_row", (1, 1, 9, 64)),
    ArgSpec("groups_of_4", (2, 8, 8, 64), FilterSpec(3), 16),
    ArgSpec("narrow", (2, 4, 7, 128)),
    ArgSpec("several_tiles", (1, 5, 56, 128)),
    ArgSpec("large_kernel", (1, 7, 7, 64), FilterSpec(7), 1, False),
)
ALL_DTYPES = (suite.FLOAT32, *(dtypes for dtypes in suite.MIXED_DTYPES if "float64" not in dtypes))


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


def test_filters_of_all_groups_are_counted_where_a_copy_brings_them():
    arg = ArgSpec("wide_groups", (2, 14, 128, 320), FilterSpec(7), 4)
    run = jax.jit(lambda *arrays: arg.call(*arrays, implementation=("mosaic_gpu", "xla")))
    run.trace(*arg.structs("bfloat16")).lower(lowering_platforms=("cuda",))


@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16")], ids="-".join)
def test_a_correlation_of_arrays_of_two_dtypes_has_derivatives(dtypes):
    query, key = (jnp.ones((1, 8, 56, 32), dtype) for dtype in dtypes)

    def loss(query, key):
        found = local_correlation(query, key, kernel_size=3, implementation=("mosaic_gpu", "triton"))
        return found.astype(jnp.float32).sum()

    text = jax.jit(jax.grad(loss, (0, 1))).trace(query, key).lower(lowering_platforms=("cuda",)).as_text()
    assert "@mosaic_gpu" in text


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


def test_the_cotangent_of_x_is_refused_where_its_kernel_has_none():
    for spec, message in (
        (FilterSpec(3, stride=(1, 2)), "has no cotangent of x at a stride, got (1, 2)."),
        (FilterSpec(3, padding=((0, 0), (3, 0))), "has no cotangent of x with padding past the filter."),
    ):
        assert reason(ArgSpec("dx", (1, 8, 8, 16), spec), "dx") == message


def test_every_call_that_is_not_refused_has_a_block_that_fits():
    from pallas_kernels.ops.mosaic_gpu import blocks, selection

    for channels, groups, kernel_size, stride, side in ((64, 1, 3, 1, 56), (48, 3, 5, 2, 7), (512, 32, 7, 1, 7)):
        spec = FilterSpec(kernel_size, stride=stride)
        shape = ArgShape(spec, 128, side, side, channels, groups, 2, has_spatial=True, has_channel=True)
        block = selection.choose_block(shape)
        assert block is not None
        assert blocks.shared_bytes(shape, block) <= selection.SHARED_BYTES
        assert channels % block.channels == 0
        assert block.threads * block.channels == 128 * block.vector
        assert math.gcd(block.channels, channels // groups) in (block.channels, channels // groups)


def test_a_gradient_takes_the_next_implementation_or_names_what_is_missing():
    x, spatial = jnp.ones((1, 4, 8, 16)), jnp.ones((1, 4, 8, 1, 9))

    def lowered(*implementation: str) -> str:
        def loss(spatial):
            return dynamic_filter(x, spatial, None, implementation=implementation).sum()

        return jax.jit(jax.grad(loss)).trace(spatial).lower(lowering_platforms=("cuda",)).as_text()

    assert lowered("mosaic_gpu", "triton").count(aot.TRITON_CALL) == 1  # of the spatial filter
    with pytest.raises(NotImplementedError, match="has the cotangents of x and of both filters at once, with 'mul'"):
        lowered("mosaic_gpu")


@pytest.mark.parametrize("stride", [1, 2])
def test_a_backward_pass_leaves_to_triton_only_what_mosaic_cannot_compute(stride):
    size = 8 // stride
    arrays = jnp.ones((1, 8, 8, 32)), jnp.ones((1, size, size, 1, 9)), jnp.ones((1, 9, 32))

    def loss(*arrays):
        options = {"stride": stride, "normalize": "filter_norm", "implementation": "mosaic_gpu"}
        return (dynamic_filter(*arrays, **options) ** 2).sum()

    program = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("@mosaic_gpu") == (3 if stride == 1 else 2)
    assert (aot.TRITON_CALL in program) == (stride == 2)


def test_the_forward_pass_is_one_kernel_under_vmap_and_shard_map():
    x, spatial = jnp.ones((2, 4, 8, 16)), jnp.ones((2, 4, 8, 1, 9))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def run(x, spatial):
        return dynamic_filter(x, spatial, None, implementation="mosaic_gpu")

    split = jax.shard_map(run, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    for function, arrays in ((split, (x, spatial)), (jax.vmap(run), (x[:, None], spatial[:, None]))):
        text = jax.jit(function).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
        assert text.count("@mosaic_gpu") == 1, text
