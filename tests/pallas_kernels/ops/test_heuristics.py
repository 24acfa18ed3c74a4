"""Kernel configs cover their sizes, and launches that no device can run are refused."""

import dataclasses
import re
from typing import get_args

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels import aot
from pallas_kernels.ops import heuristics
from pallas_kernels.ops.arg_specs import ARG_SPECS, ArgSpec
from pallas_kernels.ops.config import (
    ArgShape,
    KernelName,
    num_programs,
    programs_per_sample,
    steps_per_split,
    validate_launch,
)
from pallas_kernels.ops.spec import FilterSpec

KERNELS: tuple[KernelName, ...] = get_args(KernelName)


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
def test_every_config_covers_its_sizes_with_threads_that_fit_a_program(arg: ArgSpec, dtype: str):
    shape = ArgShape.of(*arg.structs(dtype), arg.spec)
    for kernel in KERNELS:
        config = heuristics.heuristic_config(shape, kernel)
        height, width = shape.tiled_size(kernel)
        rows, columns = -(-height // config.tile_h), -(-width // config.tile_w)
        assert config.block_patches * config.block_channels == config.num_warps * 32 * min(
            shape.vector_size, config.block_channels
        )
        assert config.block_channels & (config.block_channels - 1) == 0
        step_h, step_w = arg.spec.stride if kernel == "dx" else (1, 1)
        assert config.tile_h % step_h == config.tile_w % step_w == 0
        covered = num_programs(shape, config, kernel) * config.block_patches
        if kernel == "dfilters":
            assert config.block_patches * programs_per_sample(shape, config) >= rows * columns
        elif kernel == "dchannel":
            steps = steps_per_split(shape, config)
            assert config.num_splits * steps * config.block_patches >= rows * columns
        else:
            assert covered >= shape.batch * rows * columns


@pytest.mark.parametrize(
    ("arg", "expected"),
    [
        (ArgSpec("both", (8, 28, 28, 64)), ("dx", "dfilters")),
        (ArgSpec("stride", (32, 28, 28, 64), FilterSpec(3, stride=2)), ("dx", "dfilters")),
        (ArgSpec("spatial", (1, 4, 4, 8), channel=False), ("dx", "dspatial")),
        (ArgSpec("channel", (1, 4, 4, 8), groups=None), ("dx", "dchannel")),
        (ArgSpec("many_taps", (8, 28, 28, 64), FilterSpec(5)), ("dx", "dspatial", "dchannel")),
        (ArgSpec("many_rows_in_flight", (8, 28, 28, 64), FilterSpec(3, dilation=2)), ("dx", "dspatial", "dchannel")),
        (ArgSpec("upsample", (8, 28, 28, 64), FilterSpec(3, scale=2)), ("dx", "dspatial", "dchannel")),
        (ArgSpec("few_rows", (32, 4, 1024, 256)), ("dx", "dspatial", "dchannel")),
        (ArgSpec("few_programs", (1, 101, 101, 64)), ("dx", "dspatial", "dchannel")),
        (ArgSpec("small_groups", (8, 64, 64, 192), groups=16), ("dx", "dspatial", "dchannel")),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_filters_have_one_kernel_where_it_fits_and_pays(arg: ArgSpec, expected):
    assert heuristics.backward_kernels(ArgShape.of(*arg.structs(jnp.bfloat16), arg.spec)) == expected


@pytest.mark.slow
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
    shape = ArgShape.of(*ArgSpec("groups", (4096, 4, 4, 4096), groups=4096).structs(jnp.bfloat16), FilterSpec(3))
    for kernel in ("fwd", *heuristics.backward_kernels(shape)):
        validate_launch(shape, heuristics.heuristic_config(shape, kernel), kernel)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"block_taps_h": 2}, r"`block_taps_h` and `block_taps_w` must be among \[\[3\], \[3\]\]"),
        (
            {"block_taps_h": 1},
            r"`block_taps_h` and `block_taps_w` must be among \[\[3\], \[3\]\]",
        ),  # of dx with a stride
        ({"tile_h": 3}, r"multiples of \(2, 2\)"),
        ({"tile_w": 0}, r"multiples of \(2, 2\), and not 0"),
        ({"block_patches": 3}, "powers of two"),
        ({"num_warps": 0}, "powers of two"),
        ({"num_warps": 64}, "`num_warps` must be at most 32"),
        ({"num_splits": 0}, "at least 1"),
    ],
    ids=str,
)
def test_configs_that_do_not_fit_their_kernel_are_refused(change, rule):
    shape = ArgShape.of(*ARG_SPECS["resnet50_56x56x128_stride2"].structs(), FilterSpec(3, stride=2))
    config = dataclasses.replace(heuristics.heuristic_config(shape, "dx"), **change)
    with pytest.raises(ValueError, match=rule):
        validate_launch(shape, config, "dx")
