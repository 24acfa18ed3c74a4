"""Every named row is a call that the public functions accept."""

import jax
import numpy as np
import pytest

from pallas_kernels.ops.arg_specs import ARG_SPECS, BENCHMARK, POSTER, ArgSpec
from pallas_kernels.ops.spec import FilterSpec


@pytest.mark.parametrize("arg", ARG_SPECS.values(), ids=ARG_SPECS)
def test_a_named_row_is_a_valid_call(arg):
    y = jax.eval_shape(arg.call, *arg.structs())
    assert y.shape == arg.output_shape()


def test_names_are_unique_and_the_published_shapes_are_there():
    assert all(name == arg.name for name, arg in ARG_SPECS.items())
    assert [arg.name for arg in BENCHMARK] == ["8x56x56x64", "8x28x28x128", "8x14x14x256", "2x100x100x256"]
    assert ARG_SPECS["fpn_p2"].x == (2, 200, 300, 256)  # Table 2
    assert [arg.x for arg in POSTER] == [(32, r, r, 256) for r in (7, 14, 28, 56, 112, 224)]


def test_arrays_are_seeded_and_have_their_own_dtypes():
    arg = ArgSpec("small", (2, 5, 7, 4), FilterSpec(3, scale=2), groups=2)
    dtypes = ("bfloat16", "float32", "float64")
    first, again, other = arg.arrays(3, dtypes), arg.arrays(3, dtypes), arg.arrays(4, dtypes)
    assert [array.dtype.name for array in first] == list(dtypes)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert arg.cotangent(dtype=dtypes).dtype == first[0].dtype
    with jax.enable_x64(True):
        structs = arg.structs(dtypes)
    assert [(struct.shape, struct.dtype) for struct in structs] == [(array.shape, array.dtype) for array in first]


def test_a_filter_that_is_not_there_is_none():
    shapes = ArgSpec("involution", (2, 5, 7, 4), groups=2, channel=False).shapes()
    assert shapes == ((2, 5, 7, 4), (2, 5, 7, 1, 2, 9), None)
    shapes = ArgSpec("depthwise", (2, 5, 7, 4), groups=None).shapes()
    assert shapes == ((2, 5, 7, 4), None, (2, 1, 9, 4))
