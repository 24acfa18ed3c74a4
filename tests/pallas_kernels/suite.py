"""The suite of tests that every implementation of the operator passes.

    suite.check(suite.by_name("xla"), arg)           # through the public functions
    suite.check(suite.by_module(module), arg)        # an object with `forward` and `backward`, registered or not

compares the value and the three cotangents with the float64 loop of `oracle`, twice, and the two runs bit by bit.
`HARD_CASES`, `LARGE_KERNELS`, `neighbours(arg)` and the hypothesis strategy `arg_specs()` are its cases. A test takes
`slow_unless(cases, names)`: one case per claim in the fast suite, all of them in the slow.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from pallas_kernels.ops.api import run
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.implementation import Implementation
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels import oracle

DTypes = tuple[str, str, str]  # of x, of the spatial and of the channel filter
FLOAT32 = ("float32", "float32", "float32")

# The rounding error of sums in this dtype, relative to the largest value of the array.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}

# From a case to the operator of its arrays: (x, spatial, channel) -> y.
Operator = Callable[[ArgSpec], Callable[..., jax.Array]]


def by_name(implementation: str | None) -> Operator:
    return lambda arg: functools.partial(arg.call, implementation=implementation)


def by_module(implementation: Implementation) -> Operator:
    return lambda arg: functools.partial(run, implementation=(implementation,), spec=arg.spec)


def check(
    operator: Operator,
    arg: ArgSpec,
    dtypes: DTypes = FLOAT32,
    place: Callable[..., Any] = jax.device_put,
    compiler_options: dict[str, Any] | None = None,
) -> jax.stages.Compiled:
    """Asserts value and cotangents, and returns the program that computed them.

    Each element must be within half a unit in the last place of its dtype (it is rounded once) plus the rounding error
    of sums in the accumulator's dtype.

    Args:
      place: puts (x, spatial, channel, dy) on devices, such as those of a mesh.
      compiler_options: XLA's.
    """
    with jax.enable_x64("float64" in dtypes):
        arrays = place((*arg.arrays(dtype=dtypes), arg.cotangent(dtype=dtypes)))
        run = jax.jit(pull_back(operator(arg))).lower(*arrays).compile(compiler_options)
        actual, again = jax.device_get(run(*arrays)), jax.device_get(run(*arrays))
    used = [dtype for dtype, shape in zip(dtypes, arg.shapes(), strict=True) if shape is not None]
    accumulator = "float64" if "float64" in used else "float32"
    names, wanted = ("y", "dx", "dspatial", "dchannel"), (dtypes[0], *dtypes)
    for name, got, repeated, right, dtype in zip(names, actual, again, expected(arg, dtypes), wanted, strict=True):
        if right is None:
            assert got is None, f"{name} of {arg}: expected None, got {got}"
            continue
        assert got.dtype == jnp.dtype(dtype), f"{name} of {arg}: expected {dtype}, got {got.dtype}"
        assert_close(got, right, TOLERANCE[accumulator], f"{name} of {arg}, {dtypes}")
        assert got.tobytes() == repeated.tobytes(), f"{name} of {arg}: two runs gave different bits"
    return run


def pull_back(function: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array | None, ...]]:
    """From x, spatial, channel -> y to x, spatial, channel, dy -> y, dx, dspatial, dchannel."""

    def run(*arrays):
        y, pull = jax.vjp(function, *arrays[:-1])
        return y, *pull(arrays[-1])

    return run


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float, what: str):
    """|actual - expected| ≤ tolerance · max |expected| + half a unit in the last place of actual's dtype."""
    assert actual.shape == expected.shape, f"{what}: expected the shape {expected.shape}, got {actual.shape}"
    limits = jnp.finfo(actual.dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(expected), float(limits.smallest_normal))))
    allowed = tolerance * np.abs(expected).max() + float(limits.eps) / 2 * 2.0**exponent
    error = np.abs(actual.astype(np.float64) - expected)
    if not (error <= allowed).all():  # so written that NaN fails
        worst = np.unravel_index(np.argmax(np.nan_to_num(error / allowed, nan=np.inf)), error.shape)
        place = tuple(map(int, worst))
        raise AssertionError(
            f"{what}: at {place} expected {expected[worst]}, got {actual[worst]}: "
            f"an error of {error[worst]:.3g} where {allowed[worst]:.3g} is allowed"
        )


@functools.cache
def expected(arg: ArgSpec, dtypes: DTypes) -> oracle.Expected:
    """The float64 loop's y, dx, dspatial and dchannel."""
    return oracle.evaluate(arg, *arg.arrays(dtype=dtypes), arg.cotangent(dtype=dtypes))


def neighbours(arg: ArgSpec) -> list[ArgSpec]:
    """Nine cases whose H, W and C are one less than, equal to, or one more than those of `arg`, in all pairings.

    For an `arg` as large as a kernel's tile these are the partial tiles.
    """
    batch, height, width, channels = arg.x
    rows = []
    for a, b in itertools.product((-1, 0, 1), repeat=2):
        c = (a + b + 1) % 3 - 1
        x = (batch, height + a, width + b, channels + c)
        groups = arg.groups if arg.groups is None or x[3] % arg.groups == 0 else 1
        rows.append(ArgSpec(f"{arg.name}{a:+d}{b:+d}{c:+d}", x, arg.spec, groups, arg.channel))
    return rows


@st.composite
def arg_specs(
    draw: st.DrawFn, kernel_sizes: tuple[int, ...] = (1, 2, 3, 5), *, float64: bool = True
) -> tuple[ArgSpec, DTypes]:
    """Any small call: sizes 1 to 9, and every option of the two public functions."""
    scale = draw(st.integers(1, 4))
    groups = draw(st.sampled_from((1, 2, 3, 4, None)))
    kernel_size = draw(st.tuples(*2 * [st.sampled_from(kernel_sizes)]))
    normalizations = [
        None,
        *(["softmax"] if groups else []),
        # Two normalised taps are constants: their cotangent is a rounding error.
        *(["filter_norm"] if groups and math.prod(kernel_size) > 2 else []),
    ]
    spec = FilterSpec(
        kernel_size,
        stride=draw(st.tuples(*2 * [st.integers(1, 4)])) if scale == 1 else 1,
        scale=scale,
        dilation=draw(st.tuples(*2 * [st.integers(1, 4)])),
        combine=draw(st.sampled_from(("mul", "add"))),
        normalize=draw(st.sampled_from(normalizations)),
    )
    if scale == 1 and draw(st.booleans()):
        wider = draw(st.tuples(*2 * [st.tuples(*2 * [st.integers(0, 3)])]))
        padding = [(span + before, after) for span, (before, after) in zip(spec.span, wider, strict=True)]
        spec = dataclasses.replace(spec, padding=padding)
    side = st.integers(1, 9 if scale == 1 else 4)
    channels = draw(st.integers(1, 3)) * (groups or 1)
    channel = True if groups is None else draw(st.booleans())
    x = (draw(st.integers(1, 3)), draw(side), draw(side), channels)
    dtype = st.sampled_from(("float32", "bfloat16", "float16", *(("float64",) if float64 else ())))
    dtypes = draw(st.one_of(st.just(FLOAT32), st.tuples(dtype, dtype, dtype)))
    return ArgSpec("drawn", x, spec, groups, channel), dtypes


def _case(name: str, x: tuple[int, int, int, int], kernel_size: Any = 3, **options) -> ArgSpec:
    rest = {option: options.pop(option) for option in ("groups", "channel") if option in options}
    return ArgSpec(name, x, FilterSpec(kernel_size, **options), **rest)


HARD_CASES = (
    *(_case(f"kernel_{k}", (2, 6, 5, 4), k, groups=2) for k in (1, 3, 5)),
    _case("kernel_7_on_a_smaller_image", (1, 4, 6, 3), 7),
    _case("one_pixel", (1, 1, 1, 1)),
    _case("one_pixel_of_three_channels", (2, 1, 1, 3), 5, groups=3),
    _case("one_row", (1, 1, 9, 2), 5),
    _case("one_column", (1, 9, 1, 2), 5, combine="add"),
    *(_case(f"stride_{n}", (2, 9, 7, 4), stride=n, groups=2) for n in (2, 3, 4)),
    *(_case(f"dilation_{n}", (2, 7, 9, 4), dilation=n, combine="add") for n in (2, 3, 4)),
    _case("stride_and_dilation", (1, 10, 11, 2), 5, stride=3, dilation=2),
    _case("stride_past_the_image", (3, 2, 3, 2), stride=4),
    _case("dilation_past_the_image", (2, 3, 3, 2), 3, dilation=4),
    _case("a_group_for_each_channel", (2, 5, 5, 6), groups=6),
    _case("add_in_groups", (2, 5, 6, 6), groups=3, combine="add"),
    _case("no_channel_filter", (2, 6, 5, 6), 5, groups=2, channel=False),
    _case("no_channel_filter_add", (2, 5, 5, 2), stride=2, channel=False, combine="add"),
    _case("no_spatial_filter", (2, 6, 5, 6), 5, groups=None, dilation=2),
    _case("no_spatial_filter_add", (2, 6, 5, 6), stride=2, groups=None, combine="add"),
    *(_case(f"scale_{n}", (2, 3, 4, 4), scale=n, groups=2) for n in (2, 3, 4)),
    _case("scale_add_dilation", (1, 5, 3, 3), scale=2, dilation=2, combine="add"),
    _case("scale_no_channel_filter", (1, 4, 3, 4), 5, scale=2, channel=False),
    _case("scale_no_spatial_filter", (2, 3, 4, 2), scale=3, groups=None),
    _case("scale_one_pixel", (1, 1, 1, 1), scale=2),
    _case("rectangular_and_even", (2, 6, 7, 4), (4, 2), stride=(2, 1), dilation=(1, 2), groups=2),
    _case("valid", (1, 6, 7, 4), stride=(1, 2), padding=((0, 0), (0, 0))),
    _case("causal_sequence", (2, 1, 9, 4), (1, 4), padding=((0, 0), (3, 0)), groups=2),
    _case("padding_past_the_filter", (1, 3, 4, 2), (3, 2), padding=((4, 1), (0, 3))),
    _case("softmax_in_groups", (2, 3, 5, 4), (1, 3), normalize="softmax", groups=2),
    _case("filter_norm_stride", (2, 5, 6, 4), stride=2, normalize="filter_norm", gain=1.5),
    _case("filter_norm_add", (2, 5, 6, 4), normalize="filter_norm", combine="add", groups=2),
    _case("scale_softmax", (1, 3, 4, 4), scale=2, normalize="softmax", channel=False, groups=2),
    _case("softmax_kernel_5", (1, 5, 4, 4), 5, normalize="softmax", channel=False),
)

# Apart, because implementations that unroll the taps compile them slowly.
LARGE_KERNELS = tuple(_case(f"kernel_{k}", (1, 4, 13, 4), k, groups=2) for k in (9, 11, 15))

# One case per claim: every option, its combinations that share code, and every kind of border. No implementation has
# code for kernels larger than 7 alone.
REPRESENTATIVE = (
    "kernel_7_on_a_smaller_image",
    "one_pixel_of_three_channels",
    "stride_and_dilation",
    "stride_past_the_image",
    "dilation_past_the_image",
    "add_in_groups",
    "no_channel_filter_add",
    "no_spatial_filter_add",
    "scale_add_dilation",
    "scale_no_spatial_filter",
    "rectangular_and_even",
    "padding_past_the_filter",
    "filter_norm_stride",
    "filter_norm_add",
    "scale_softmax",
)


def slow_unless(cases: Iterable[ArgSpec], names: Collection[str] = REPRESENTATIVE) -> list[Any]:
    """Parameters of a test: the named cases, and the others marked slow."""
    cases = tuple(cases)
    missing = {*names} - {arg.name for arg in cases}
    assert not missing, f"no case is named {missing}"
    return [pytest.param(arg, id=arg.name, marks=() if arg.name in names else pytest.mark.slow) for arg in cases]


MIXED_DTYPES = (
    ("bfloat16", "bfloat16", "bfloat16"),
    ("float16", "float16", "float16"),
    ("float64", "float64", "float64"),
    ("bfloat16", "float32", "float32"),
    ("float32", "bfloat16", "float16"),
    ("float16", "float32", "bfloat16"),
    ("float32", "float64", "bfloat16"),
    ("float64", "float16", "float32"),
)
