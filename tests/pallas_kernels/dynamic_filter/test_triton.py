"""The Triton kernels compute the operator: run by Pallas's interpreter, not as fast as a GPU but with its indices."""

import dataclasses

import jax.numpy as jnp
import pytest

from pallas_kernels.dynamic_filter import config as block_config
from pallas_kernels.dynamic_filter import triton, triton_vjp
from pallas_kernels.dynamic_filter.arg_specs import ArgSpec
from pallas_kernels.dynamic_filter.config import BlockConfig, Pass, Problem
from pallas_kernels.dynamic_filter.spec import FilterSpec
from pallas_kernels.dynamic_filter.vjp import Residuals
from tests.pallas_kernels import suite

# Programs of four patches of 2×2 (times the stride in the cotangent of x), so that few pixels have all kinds of edges.
PATCHES, SIDE = 4, 2


@dataclasses.dataclass(frozen=True)
class Interpreted:
    """The kernels as an implementation, with the heuristic's blocks, or with small ones."""

    small: bool = True

    def forward(self, x, spatial, channel, spec):
        problem = Problem.of(x, spatial, channel, spec)
        return triton.forward(x, spatial, channel, spec, config=self._cut(problem, "forward"), interpret=True)

    def backward(self, residuals: Residuals, dy, spec):
        problem = Problem.of(*residuals, spec)
        passes: tuple[Pass, ...] = ("input", "spatial", "channel")
        configs: dict[Pass, BlockConfig] = {which: self._cut(problem, which) for which in passes}
        return triton_vjp.backward(residuals, dy, spec, configs=configs, interpret=True)

    def _cut(self, problem: Problem, which: Pass) -> BlockConfig:
        config = block_config.heuristic(problem, which)
        if not self.small:
            return config
        step = problem.spec.stride if which == "input" else 1
        side, chunks = SIDE * step, 2 if which == "channel" else 1
        return dataclasses.replace(config, patches=PATCHES, rows=side, columns=side, chunks=chunks)


SMALL = suite.by_module(Interpreted())

# Each in one option or edge that the others lack; a large kernel in a small block, because it is written out.
CASES = (
    ArgSpec("tile_and_rest", (2, 5, 4, 6), groups=2),
    ArgSpec("stride_2", (1, 5, 6, 3), FilterSpec(3, stride=2), groups=3),
    ArgSpec("stride_3_dilation_2_add", (2, 7, 4, 4), FilterSpec(3, stride=3, dilation=2, combine="add")),
    ArgSpec("no_channel_filter", (1, 5, 3, 6), FilterSpec(5), groups=2, channel=False),
    ArgSpec("no_spatial_filter", (2, 3, 5, 10), groups=None),
    ArgSpec("loop_over_rows", (1, 4, 3, 4), FilterSpec(7), channel=False),
    ArgSpec("loop_over_taps", (1, 3, 2, 4), FilterSpec(11, combine="add")),
    ArgSpec("stride_past_the_kernel", (1, 5, 4, 2), FilterSpec(1, stride=3)),
    ArgSpec("scale_2", (1, 3, 2, 4), FilterSpec(3, scale=2), groups=2),
    ArgSpec("scale_2_no_channel_filter", (1, 3, 3, 4), FilterSpec(3, scale=2, dilation=2), channel=False),
    ArgSpec("one_pixel", (1, 1, 1, 1)),
)


@pytest.fixture
def poisoned(monkeypatch):
    """One NaN row behind every array: a read outside, before or behind, is clamped onto it."""

    def pixel_rows(*arrays):
        return tuple(
            None if a is None else jnp.concatenate([a, jnp.full((1, a.shape[1]), jnp.nan, a.dtype)])
            for a in original(*arrays)
        )

    original = triton.pixel_rows
    monkeypatch.setattr(triton, "pixel_rows", pixel_rows)
    monkeypatch.setattr(triton_vjp, "pixel_rows", pixel_rows)


@pytest.mark.parametrize("arg", CASES, ids=lambda arg: arg.name)
def test_values_and_cotangents_are_those_of_the_loop_and_nothing_outside_is_read(arg, poisoned):
    suite.check(SMALL, arg)
