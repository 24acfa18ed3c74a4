"""The portable implementation allocates little in addition to its arguments and results, of few axes each."""

import re
from typing import Any

import jax
import pytest

from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from tests.compilation import FUSED_AS_BY_DEFAULT
from tests.pallas_kernels import suite

ROWS = (
    ArgSpec("kernel_7", (4, 32, 32, 64), FilterSpec(7)),
    ArgSpec("involution_7", (4, 32, 32, 64), FilterSpec(7), groups=4, channel=False),
    ArgSpec("depthwise_7", (4, 32, 32, 64), FilterSpec(7), groups=None),
    ArgSpec("kernel_3_add", (4, 32, 32, 64), FilterSpec(3, combine="add")),
    ArgSpec("stride_2", (4, 32, 32, 64), FilterSpec(7, stride=2)),
    ArgSpec("scale_2", (4, 16, 16, 64), FilterSpec(5, scale=2)),
)
FAST = ("kernel_3_add", "scale_2")


def temporary_bytes(function, *arguments):
    memory: Any = jax.jit(function).lower(*arguments).compile(FUSED_AS_BY_DEFAULT).memory_analysis()
    return memory.temp_size_in_bytes


def size(*structs):
    return sum(struct.size * struct.dtype.itemsize for struct in structs if struct is not None)


@pytest.mark.parametrize("arg", suite.slow_unless(ROWS, FAST))
def test_the_forward_pass_allocates_little_more_than_the_padded_image(arg):
    batch, height, width, channels = arg.x
    padded = batch * (height + arg.spec.span[0]) * (width + arg.spec.span[1]) * channels * 4
    rearranged = size(arg.structs()[1]) if arg.spec.scale > 1 else 0  # the sub-pixels of the spatial filter
    assert temporary_bytes(suite.by_name("xla")(arg), *arg.structs()) < padded + rearranged + 4096


@pytest.mark.parametrize("arg", suite.slow_unless(ROWS, FAST))
def test_the_backward_pass_never_allocates_every_tap_of_every_channel(arg):
    inputs, dy = arg.structs(), jax.ShapeDtypeStruct(arg.output_shape(), "float32")
    temporary = temporary_bytes(suite.pull_back(suite.by_name("xla")(arg)), *inputs, dy)
    every_tap_of_every_channel = arg.spec.taps * size(dy)
    assert temporary < every_tap_of_every_channel / 2
    assert temporary < 3 * (2 * size(*inputs) + size(dy))  # of the inputs, their cotangents and dy


@pytest.mark.parametrize(
    "spec",
    [FilterSpec(3, stride=2, normalize="filter_norm"), FilterSpec(3, scale=2, normalize="softmax")],
    ids=["scale_1", "scale_2"],
)
def test_no_array_has_more_than_six_axes(spec):
    """With the axes of sub-pixels and of groups apart they had seven; see `pallas_kernels/ops/xla.py`."""
    arg = ArgSpec("groups", (2, 8, 8, 16), spec, groups=4)
    inputs, dy = arg.structs(), jax.ShapeDtypeStruct(arg.output_shape(), "float32")
    both = suite.pull_back(suite.by_name("xla")(arg))
    for function, arguments in ((suite.by_name("xla")(arg), inputs), (both, (*inputs, dy))):
        program = jax.jit(function).lower(*arguments).as_text()
        assert 5 < max(shape.count("x") for shape in re.findall(r"tensor<((?:\d+x)+)", program)) <= 6
