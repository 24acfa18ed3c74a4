"""Convolutions and pooling of images whose rows are split: the values of whole images, and only halos and sums."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ddf_jax.errors import UserError
from ddf_jax.functional import (
    average_pool,
    convolution,
    height_split,
    max_pool,
    maximum,
    per_sample_conv,
    pixel_product,
)
from tests.split_rows import check_as_whole, mesh_of

X = (2, 32, 6, 4)
ROWS = P("data", "height")
PERMUTE, REDUCE = "collective-permute", "all-reduce"
RNG = np.random.default_rng(0)


def conv(kernel_size: int, stride: int = 1, dilation: int = 1, groups: int = 1, padding: Any = None) -> Any:
    same = dilation * (kernel_size // 2)
    border: Any = padding or (same, same)
    options = {
        "rhs_dilation": (dilation, dilation),
        "feature_group_count": groups,
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
    }
    shape = (kernel_size, kernel_size, X[3] // groups, 4)
    return lambda x, kernel: convolution(x, kernel, (stride, stride), (border, border), **options), shape


# Function, shape of its kernel, and the numbers of rows above and below that a device needs.
CASES: dict[str, tuple[Any, tuple[int, ...] | None, tuple[int, int]]] = {
    "convolution": (*conv(3), (1, 1)),
    "of_stride_2": (*conv(3, 2), (1, 0)),
    "of_a_stem": (*conv(7, 2), (3, 2)),
    "dilated": (*conv(5, dilation=3), (6, 6)),
    "in_groups": (*conv(3, groups=2), (1, 1)),
    "depthwise": (*conv(3, 2, groups=4), (1, 0)),
    "even": (*conv(4, padding=(1, 2)), (1, 2)),
    "patches": (*conv(2, 2, padding=(0, 0)), (0, 0)),
    "pointwise": (lambda x, kernel: pixel_product(x, kernel, None), (4, 8), (0, 0)),
    "per_sample": (lambda x, kernels: per_sample_conv(x, kernels, stride=2), (2, 3, 3, 4, 5), (1, 0)),
    "max_pool": (max_pool, None, (1, 0)),
    "average_pool": (functools.partial(average_pool, size=2), None, (0, 0)),
    "maximum_of_channels": (lambda x: maximum(x, 3)[..., None], None, (0, 0)),
}
FAST = {("of_stride_2", 4, 2), ("in_groups", 2, 1), ("max_pool", 8, 1)}


def check(name: str, height: int, data: int, *, explicit: bool = False) -> Any:
    function, shape, _ = CASES[name]
    mesh = mesh_of(height, data, explicit=explicit)
    arrays, specs = [RNG.normal(size=X)], [ROWS]
    if shape is not None:
        arrays, specs = [*arrays, RNG.normal(size=shape)], [ROWS, P("data" if len(shape) == 5 else None)]
    return check_as_whole(
        function, mesh, arrays, specs, within=functools.partial(height_split, NamedSharding(mesh, ROWS))
    )


@pytest.mark.parametrize(
    ("name", "height", "data"),
    [
        pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow)
        for case in itertools.product(CASES, (2, 4, 8), (1, 2))
        if case[1] * case[2] <= 8
    ],
)
def test_split_rows_exchange_halos_and_sum_the_cotangents_of_kernels(name, height, data):
    forward, both = check(name, height, data)
    _, shape, halo = CASES[name]
    hops = sum(-(-side * height // X[1]) for side in halo)
    assert forward.counts == ({PERMUTE: hops} if hops else {})
    sizes = forward.shapes_of(PERMUTE)
    assert sum(size[1] for size in sizes) == sum(halo)
    assert all((size[0], *size[2:]) == (X[0] // data, *X[2:]) for size in sizes)
    sums = {} if shape is None else {REDUCE: 1}
    assert both.counts == ({PERMUTE: 2 * hops} if hops else {}) | sums


@pytest.mark.slow
@pytest.mark.parametrize("name", ["of_stride_2", "pointwise", "per_sample", "max_pool"])
def test_explicit_axes_split_rows_too(name):
    forward, both = check(name, 4, 2, explicit=True)
    assert {*forward.counts} <= {PERMUTE}
    assert {*both.counts} <= {PERMUTE, REDUCE}


@pytest.mark.slow
def test_the_maximum_of_an_image_is_that_of_its_devices():
    """Ties included: the gradient goes to the first pixel in row-major order."""
    x = RNG.integers(0, 3, X)
    mesh = mesh_of(4, 2)

    def function(x: Any) -> Any:
        return x * maximum(x, 1, 2)[:, None, None]

    within = functools.partial(height_split, NamedSharding(mesh, ROWS))
    programs = check_as_whole(function, mesh, [x], [ROWS], within=within)
    shapes = [shape for program in programs for kind, _ in program.found for shape in program.shapes_of(kind)]
    assert all(np.prod(shape) <= 4 * X[0] * X[3] for shape in shapes)  # one value per device, sample and channel


@pytest.mark.parametrize(
    ("function", "x", "message"),
    [
        (max_pool, (1, 12, 4, 1), r"multiple of their number times the stride, 4 · 2 = 8, got H = 12 for x.shape="),
        (
            lambda x: conv(3, padding=(0, 0))[0](x, jnp.ones((3, 3, 4, 4))),
            (1, 8, 4, 4),
            r"give H / stride = 8 rows, got padding=\(0, 0\) for a window of 3 rows and stride=1",
        ),
    ],
)
def test_rows_that_devices_cannot_share_are_an_error(function, x, message):
    with height_split(NamedSharding(mesh_of(4), ROWS)), pytest.raises(UserError, match=message):
        jax.eval_shape(function, jnp.ones(x))


def test_one_device_along_the_height_changes_nothing():
    def traced(x: Any) -> str:
        return str(jax.make_jaxpr(lambda x: max_pool(x))(x))

    x = jnp.ones((8, 6, 6, 1))
    whole = traced(x)
    for sharding in (None, NamedSharding(mesh_of(1, 8), ROWS), NamedSharding(mesh_of(8), P("data"))):
        with height_split(sharding):
            assert traced(x) == whole
