"""What a kernel is launched with: as many programs as the sizes need, or a refusal before the launch."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels import aot
from pallas_kernels.ops import heuristics
from pallas_kernels.ops.arg_specs import ARG_SPECS, ArgSpec
from pallas_kernels.ops.config import (
    Pass,
    Problem,
    check_launch,
    parts_of_sample,
    programs,
    steps_per_chunk,
)
from pallas_kernels.ops.spec import FilterSpec

PASSES: tuple[Pass, ...] = ("forward", "input", "spatial", "channel", "filters")


def pull_back(arg: ArgSpec):
    def run(x, spatial, channel, dy):
        y, pull = jax.vjp(lambda *a: arg.call(*a, implementation="triton"), x, spatial, channel)
        return y, *pull(dy)

    return run


def kernels(arg: ArgSpec):
    dy = jax.ShapeDtypeStruct(arg.output_shape(), jnp.bfloat16)
    return aot.triton_kernels(pull_back(arg), *arg.structs(jnp.bfloat16), dy)


@pytest.mark.parametrize("arg", ARG_SPECS.values(), ids=ARG_SPECS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_cut_covers_its_sizes_with_threads_that_fit_a_program(arg, dtype):
    problem = Problem.of(*arg.structs(dtype), arg.spec)
    for which in PASSES:
        config = heuristics.choose(problem, which)
        height, width = (problem.height, problem.width) if which == "input" else problem.positions
        lines, columns = -(-height // config.rows), -(-width // config.columns)
        assert config.patches * config.channels == config.warps * 32 * min(problem.lanes, config.channels)
        assert config.channels & (config.channels - 1) == 0
        step = arg.spec.stride if which == "input" else 1
        assert config.rows % step == config.columns % step == 0
        covered = programs(problem, config, which) * config.patches
        if which == "filters":
            assert config.patches * parts_of_sample(problem, config) >= lines * columns
        elif which == "channel":
            steps = steps_per_chunk(problem, config)
            assert config.chunks * steps * config.patches >= lines * columns
        else:
            assert covered >= problem.batch * lines * columns


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        (ArgSpec("both", (8, 28, 28, 64)), ("input", "filters")),
        (ArgSpec("stride", (32, 28, 28, 64), FilterSpec(3, stride=2)), ("input", "filters")),
        (ArgSpec("spatial", (1, 4, 4, 8), channel=False), ("input", "spatial")),
        (ArgSpec("channel", (1, 4, 4, 8), groups=None), ("input", "channel")),
        (ArgSpec("many_taps", (8, 28, 28, 64), FilterSpec(5)), ("input", "spatial", "channel")),
        (ArgSpec("many_rows_in_flight", (8, 28, 28, 64), FilterSpec(3, dilation=2)), ("input", "spatial", "channel")),
        (ArgSpec("upsample", (8, 28, 28, 64), FilterSpec(3, scale=2)), ("input", "spatial", "channel")),
        (ArgSpec("few_rows", (32, 4, 1024, 256)), ("input", "spatial", "channel")),
        (ArgSpec("few_programs", (1, 101, 101, 64)), ("input", "spatial", "channel")),
        (ArgSpec("small_groups", (8, 64, 64, 192), groups=16), ("input", "spatial", "channel")),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_filters_have_one_kernel_where_it_fits_and_pays(arg, expected):
    assert heuristics.gradient_passes(Problem.of(*arg.structs(jnp.bfloat16), arg.spec)) == expected


def test_addresses_have_64_bits_where_an_array_has_more_than_2_to_the_31_elements():
    small, large = (kernels(ArgSpec("sizes", (batch, 256, 256, 512))) for batch in (8, 80))
    assert 80 * 256 * 256 * 512 > 2**31
    for before, after in zip(small, large, strict=True):
        addresses = re.compile(r"tensor<\d+x64xi64>")  # patches × channels
        assert not addresses.search(before.code), before.name
        assert addresses.search(after.code), after.name


@pytest.mark.parametrize("options", [{}, {"scale": 4}], ids=str)
def test_more_pixels_than_32_bits_count_are_refused_before_the_launch(options):
    side = 2**14 // options.get("scale", 1)
    x = jax.ShapeDtypeStruct((8, side, side, 8), jnp.bfloat16)
    arg = ArgSpec("pixels", x.shape, FilterSpec(3, **options))
    with pytest.raises(NotImplementedError, match=r"at most 2147483647 pixels, got 2147483648 .* Split the batch"):
        kernels(arg)


@pytest.mark.parametrize(
    ("arg", "counted"),
    [
        (ArgSpec("filters", (2**31 // 225 + 1, 1, 1, 1), FilterSpec(15), groups=None), "rows of channel filters"),
        (ArgSpec("programs", (1, 2**15, 2**15, 4096), groups=4096, channel=False), "programs"),
        (
            ArgSpec("dilation", (1, 8, 5000, 8), FilterSpec(3, dilation=10**6), channel=False),
            "pixels that a filter spans",
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_else_32_bits_do_not_count_is_refused_too(arg, counted):
    with pytest.raises(NotImplementedError, match=f"expected at most 2147483647 {counted}, got "):
        kernels(arg)


def test_many_groups_of_few_pixels_are_not_too_many():
    problem = Problem.of(*ArgSpec("groups", (4096, 4, 4, 4096), groups=4096).structs(jnp.bfloat16), FilterSpec(3))
    for which in ("forward", *heuristics.gradient_passes(problem)):
        check_launch(problem, heuristics.heuristic(problem, which), which)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"tap_rows": 2}, r"`tap_rows` and `tap_columns` must be among \[3\]"),
        ({"tap_rows": 1}, r"`tap_rows` and `tap_columns` must be among \[3\]"),  # of a strided x's cotangent
        ({"rows": 3}, "multiples of 2"),
        ({"columns": 0}, "multiples of 2, and not 0"),
        ({"patches": 3}, "powers of two"),
        ({"warps": 0}, "powers of two"),
        ({"warps": 64}, "`warps` must be at most 32"),
        ({"chunks": 0}, "at least 1"),
    ],
    ids=str,
)
def test_cuts_that_a_kernel_cannot_have_are_refused(change, rule):
    problem = Problem.of(*ARG_SPECS["resnet50_56x56x128_stride2"].structs(), FilterSpec(3, stride=2))
    cut = dataclasses.replace(heuristics.heuristic(problem, "input"), **change)
    with pytest.raises(ValueError, match=rule):
        check_launch(problem, cut, "input")
