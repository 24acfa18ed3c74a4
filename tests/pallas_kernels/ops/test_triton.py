"""The Triton kernels compute the operator, run by Pallas's interpreter with the indices of a GPU."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import HealthCheck, given, settings

from pallas_kernels.ops import heuristics
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.config import ArgShape, BlockConfig, KernelName, rows_in_flight
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton import bwd, fwd
from tests.pallas_kernels import suite

# Programs of four small patches, so that few pixels have all kinds of edges. The code is unrolled over a patch.
PATCHES = 4
SQUARE, COLUMN, ROW = (2, 2), (2, 1), (1, 2)  # rows and columns of a patch; in dx times the stride


@dataclasses.dataclass(frozen=True)
class Interpreted:
    """The kernels as an implementation.

    Args:
      patch: rows and columns; None: the heuristic's blocks.
      together: dfilters where it fits, otherwise dspatial and dchannel.
    """

    patch: tuple[int, int] | None = SQUARE
    together: bool = True

    def forward(self, x, spatial, channel, spec, dtype=None):
        shape = ArgShape.of(x, spatial, channel, spec)
        return fwd.forward(x, spatial, channel, spec, dtype, config=self._config(shape, "fwd"), interpret=True)

    def backward(self, operands, results, spec):
        shape = ArgShape.of_backward(operands, results, spec)
        together = self.together and heuristics.dfilters_fits(shape)
        kernels: tuple[KernelName, ...] = ("dx", "dfilters") if together else ("dx", "dspatial", "dchannel")
        configs: dict[KernelName, BlockConfig] = {kernel: self._config(shape, kernel) for kernel in kernels}
        return bwd.backward(operands, results, spec, configs=configs, interpret=True)

    def _config(self, shape: ArgShape, kernel: KernelName) -> BlockConfig:
        config = heuristics.heuristic_config(shape, kernel)
        if self.patch is None:
            return config
        tile_h, tile_w = (side * step for side, step in zip(self.patch, shape.tile_step(kernel), strict=True))
        if kernel == "dfilters":  # so that its loop over rows runs twice
            tile_h = rows_in_flight(shape.spec) + 2
        num_splits = 2 if kernel == "dchannel" else 1
        return dataclasses.replace(config, block_patches=PATCHES, tile_h=tile_h, tile_w=tile_w, num_splits=num_splits)


SQUARES, COLUMNS, ROWS, WHOLE = (suite.by_module(Interpreted(patch)) for patch in (SQUARE, COLUMN, ROW, None))
APART, COLUMNS_APART = (suite.by_module(Interpreted(patch, together=False)) for patch in (SQUARE, COLUMN))
TILE = ArgSpec("tile", (1, 4, 4, 4))  # four squares, one block of four channels

# The quick cases have few taps: compiling them takes a time in proportion.
A_ROW, A_COLUMN = (1, 3), (2, 1)
ONE_ABOVE = ArgSpec("one_above_of_four_taps", (1, 5, 5, 3), FilterSpec(2))
ONE_BELOW = ArgSpec("one_below_of_three_taps", (1, 3, 3, 5), FilterSpec(A_ROW))
DISTANT_TAPS = ArgSpec("distant_taps", (1, 5, 3, 3), FilterSpec(A_COLUMN, scale=2, dilation=2, combine="add"))
SCALE_ALONE = ArgSpec("scale_no_spatial_filter_two_taps", (2, 3, 4, 2), FilterSpec(A_COLUMN, scale=3), groups=None)
WITH_HEURISTICS = (
    ArgSpec("filter_of_two_taps", (2, 9, 5, 20), FilterSpec(A_COLUMN), groups=2),
    ArgSpec("filter", (2, 9, 5, 20), groups=2),
    ArgSpec("upsample", (1, 3, 5, 12), FilterSpec(3, scale=2)),
)
EACH_OPTION = (  # the sum of both filters is that of `DISTANT_TAPS`
    SCALE_ALONE.name,
    "one_pixel_of_three_channels",
    "rectangular_and_even",
    "softmax_in_groups",
)
HALF = [dtypes for dtypes in suite.MIXED_DTYPES if "float64" not in dtypes]
DTYPES = ArgSpec("dtypes", (2, 5, 4, 6), FilterSpec(A_ROW), groups=2)

OPTIONS = suite.arg_specs(kernel_sizes=(1, 2, 3), float64=False)
DRAWN: dict[str, Any] = {
    "derandomize": True,
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],  # every example is poisoned alike
}

# An interpreted kernel is a long program that runs for milliseconds: JAX 0.11 and later compile it without fusion.
QUICKLY: dict[str, Any] = (
    {} if jax.__version_info__ < (0, 11) else {"xla_disable_hlo_passes": "fusion,cpu-instruction-fusion"}
)


@pytest.fixture
def poisoned(monkeypatch):
    """One row of NaN after every array: the interpreter clamps a read outside, before or after, onto it."""

    def pixel_rows(*arrays):
        return tuple(
            None if a is None else jnp.concatenate([a, jnp.full((1, a.shape[1]), jnp.nan, a.dtype)])
            for a in original(*arrays)
        )

    original = fwd.pixel_rows
    monkeypatch.setattr(fwd, "pixel_rows", pixel_rows)
    monkeypatch.setattr(bwd, "pixel_rows", pixel_rows)


@pytest.mark.slow
@pytest.mark.parametrize("arg", [*suite.HARD_CASES, *suite.LARGE_KERNELS], ids=lambda arg: arg.name)
def test_values_and_cotangents_equal_the_loop_and_nothing_outside_is_read(arg, poisoned):
    suite.check(SQUARES, arg, compiler_options=QUICKLY)


@pytest.mark.parametrize("arg", suite.slow_unless((SCALE_ALONE, *suite.HARD_CASES), EACH_OPTION))
def test_patches_of_one_column_equal_the_loop_and_nothing_outside_is_read(arg, poisoned):
    suite.check(COLUMNS, arg, compiler_options=QUICKLY)


@pytest.mark.parametrize("arg", suite.slow_unless((DISTANT_TAPS, *suite.HARD_CASES), (DISTANT_TAPS.name,)))
def test_patches_of_one_row_equal_the_loop_and_nothing_outside_is_read(arg, poisoned):
    suite.check(ROWS, arg, compiler_options=QUICKLY)


@pytest.mark.parametrize("arg", suite.slow_unless((ONE_ABOVE, *suite.neighbours(TILE)), (ONE_ABOVE.name,)))
def test_sizes_one_below_at_and_one_above_a_tile_equal_the_loop(arg, poisoned):
    suite.check(SQUARES, arg, compiler_options=QUICKLY)


@pytest.mark.parametrize("arg", suite.slow_unless((ONE_BELOW, *suite.neighbours(TILE)), (ONE_BELOW.name,)))
def test_dspatial_and_dchannel_apart_equal_the_loop_at_the_same_sizes(arg, poisoned):
    suite.check(APART, arg, compiler_options=QUICKLY)


@pytest.mark.parametrize(
    "dtypes",
    [
        pytest.param(dtypes, id="-".join(dtypes), marks=() if dtypes[0] == "float16" != dtypes[1] else pytest.mark.slow)
        for dtypes in HALF
    ],
)
def test_any_dtypes_are_summed_wide_and_rounded_once(dtypes, poisoned):
    suite.check(COLUMNS, DTYPES, dtypes, compiler_options=QUICKLY)


@pytest.mark.slow
@pytest.mark.parametrize("dtypes", [("float32", "bfloat16", "float16")], ids="-".join)
def test_dspatial_and_dchannel_apart_sum_wide_and_round_once(dtypes, poisoned):
    suite.check(COLUMNS_APART, DTYPES, dtypes, compiler_options=QUICKLY)


@pytest.mark.parametrize("arg", suite.slow_unless(WITH_HEURISTICS, ("filter_of_two_taps",)))
def test_blocks_of_the_heuristics_equal_the_loop(arg, poisoned):
    suite.check(WHOLE, arg, compiler_options=QUICKLY)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [SQUARES, APART, COLUMNS], ids=["together", "apart", "columns"])
@settings(max_examples=50, **DRAWN)
@given(drawn=OPTIONS)
def test_any_options_equal_the_loop(kernels, drawn, poisoned):
    arg, dtypes = drawn
    suite.check(kernels, arg, dtypes, compiler_options=QUICKLY)
