"""`dynamic_upsample` equals S² filters, a stack and a pixel shuffle, without the latter two."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import aot, dynamic_filter
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from tests.compilation import FUSED_AS_BY_DEFAULT
from tests.pallas_kernels import suite

CASES = (
    ArgSpec("scale_1", (2, 5, 3, 4), FilterSpec(3), groups=2),
    ArgSpec("scale_2_add_dilation", (2, 3, 5, 4), FilterSpec(3, scale=2, dilation=2, combine="add")),
    ArgSpec("scale_2_kernel_5", (1, 7, 5, 4), FilterSpec(5, scale=2), groups=4, channel=False),
    ArgSpec("scale_3", (2, 5, 3, 6), FilterSpec(3, scale=3), groups=3),
    ArgSpec("scale_3_no_spatial", (2, 3, 5, 3), FilterSpec(3, scale=3, dilation=2), groups=None),
    ArgSpec("scale_4_add", (1, 3, 3, 4), FilterSpec(3, scale=4, combine="add"), groups=2),
)
OF_BFLOAT16 = ("scale_2_add_dilation", "scale_3_no_spatial")


def compiled(function, *arrays):
    """A function to value and cotangents as float64 arrays, None for a filter of None."""
    run = jax.jit(suite.pull_back(function)).lower(*arrays).compile()
    return lambda *arrays: jax.tree.map(np.float64, run(*arrays))


def sub_pixels(y, scale):
    """The inverse of `pixel_shuffle`: [B, S·H, S·W, C] as S² arrays [B, H, W, C]."""
    return [y[:, i::scale, j::scale] for i in range(scale) for j in range(scale)]


@pytest.mark.parametrize("arg", suite.slow_unless(CASES, ("scale_2_add_dilation", "scale_3")))
def test_value_and_cotangents_are_those_of_a_filter_for_each_sub_pixel_and_a_pixel_shuffle(arg):
    dtype = "bfloat16" if arg.name in OF_BFLOAT16 else "float32"
    spec, (x, spatial, channel), dy = arg.spec, arg.arrays(dtype=dtype), arg.cotangent(dtype=dtype)
    y, dx, dspatial, dchannel = compiled(arg.call, x, spatial, channel, dy)(x, spatial, channel, dy)

    one = functools.partial(dynamic_filter, dilation=spec.dilation, combine=spec.combine)
    parts = [
        (x, None if spatial is None else spatial[:, :, :, s], None if channel is None else channel[:, s], part)
        for s, part in enumerate(sub_pixels(dy, spec.scale))
    ]
    filtered = compiled(one, *parts[0])
    results = [filtered(*part) for part in parts]

    tolerance = 2e-6 if dtype == "float32" else float(jnp.finfo(dtype).eps)
    close: Any = functools.partial(np.testing.assert_allclose, rtol=0, atol=tolerance * np.abs(y).max())
    for s, (expected, sub_pixel) in enumerate(zip(results, sub_pixels(y, spec.scale), strict=True)):
        close(sub_pixel, expected[0], err_msg=f"y of sub-pixel {s}")
        for name, found, wanted in (
            ("dspatial", None if dspatial is None else dspatial[:, :, :, s], expected[2]),
            ("dchannel", None if dchannel is None else dchannel[:, s], expected[3]),
        ):
            if wanted is None:
                assert found is None
            else:
                close(found, wanted, atol=tolerance * np.abs(wanted).max(), err_msg=f"{name} of sub-pixel {s}")
    summed = sum(expected[1] for expected in results)  # of terms that are rounded each
    close(
        dx, summed, atol=tolerance * max(np.abs(expected[1]).max() for expected in results) * spec.scale, err_msg="dx"
    )


def stacked(arg, x, spatial, channel):
    """The literal formulation: S² filters, stacked, and torch's `pixel_shuffle`."""
    scale, (batch, height, width, channels) = arg.spec.scale, x.shape
    outputs = [dynamic_filter(x, spatial[:, :, :, s], channel[:, s]) for s in range(scale**2)]
    y = jnp.stack(outputs, axis=3).reshape(batch, height, width, scale, scale, channels)
    return y.swapaxes(2, 3).reshape(batch, scale * height, scale * width, channels)


WIDE = ArgSpec("wide", (2, 5, 7, 64), FilterSpec(3, scale=2))  # a filter has far fewer values than there are channels
REARRANGEMENTS = {"concatenate", "transpose", "copy", "gather", "scatter", "dynamic-update-slice"}


def rearrangements(program, size):
    """The operations of a compiled program, also inside fusions, that rearrange at least so many values."""
    found = re.findall(r"= \w+\[([\d,]+)\]\S* ([\w-]+)\(", program.as_text())
    large = {operation for shape, operation in found if math.prod(map(int, shape.split(","))) >= size}
    assert large  # the text was parsed
    return large & REARRANGEMENTS


def test_the_compiled_program_neither_stacks_nor_shuffles_outputs():
    structs, size = WIDE.structs(), math.prod(WIDE.output_shape())
    functions = (WIDE.call, functools.partial(stacked, WIDE))
    forward, literal = (jax.jit(function).lower(*structs).compile(FUSED_AS_BY_DEFAULT) for function in functions)
    assert rearrangements(forward, size) == set()
    assert {"concatenate", "transpose"} <= rearrangements(literal, size)


def test_the_backward_pass_unshuffles_nothing_either():
    structs = *WIDE.structs(), jax.ShapeDtypeStruct(WIDE.output_shape(), jnp.float32)
    size = math.prod(WIDE.output_shape())
    backward = jax.jit(suite.pull_back(WIDE.call)).lower(*structs).compile(FUSED_AS_BY_DEFAULT)
    assert rearrangements(backward, size) == set()


def test_on_a_gpu_one_kernel_writes_the_output_where_it_stays():
    structs, shape = WIDE.structs(jnp.bfloat16), WIDE.output_shape()
    program = aot.lower(WIDE.call, *structs).as_text()
    results = re.findall(r"= stablehlo\.(\w+) .*-> tensor<([\dx]+)x\w+>", program)
    large = [name for name, result in results if math.prod(map(int, result.split("x"))) >= math.prod(shape)]
    assert large == ["custom_call", "reshape"]
    assert program.count(aot.TRITON_CALL) == 1
