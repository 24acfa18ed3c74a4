"""Checks of the GPU kernels against the reference in float64, on sizes that no tile divides."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.rows import Row
from pallas_kernels.ops import reference
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.implementation import Operands, cotangents_of
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton import bwd, fwd
from pallas_kernels.tuning.measure import error_share

CHECKED = (
    ArgSpec("odd", (3, 33, 31, 72)),
    # Large enough for one kernel of both filters.
    ArgSpec("both", (9, 25, 31, 128)),
    ArgSpec("both_stride", (9, 27, 30, 128), FilterSpec(3, stride=2), groups=2),
    ArgSpec("both_add", (24, 14, 13, 60), FilterSpec(3, combine="add")),
    ArgSpec("groups", (2, 29, 35, 96), FilterSpec(7), groups=6, channel=False),
    ArgSpec("stride", (2, 27, 30, 40), FilterSpec(3, stride=2), groups=5),
    ArgSpec("dilation_add", (2, 19, 23, 24), FilterSpec(5, dilation=3, combine="add")),
    ArgSpec("depthwise", (2, 17, 15, 136), groups=None),
    ArgSpec("upsample", (2, 13, 17, 48), FilterSpec(3, scale=2), groups=2),
    ArgSpec("carafe", (2, 13, 17, 64), FilterSpec(5, scale=2), channel=False),
    ArgSpec("kernel_15", (1, 20, 21, 16), FilterSpec(15)),
)


def share_of_tolerance(actual: np.ndarray, expected: np.ndarray, dtype: str) -> float:
    """The largest error as a share of the allowed one, counted in float64; infinite where it is NaN."""
    share = float(error_share(actual.astype(np.float64), expected.astype(np.float64), dtype))
    return math.inf if math.isnan(share) else share


def check(compiled: Any, arg: ArgSpec, dtype: str) -> Row:
    """Value and cotangents of a call, run twice: each within tolerance, and the same bits.

    Args:
        compiled: (dy, *inputs) to y and the cotangents.
    """
    inputs, dy = arg.arrays(dtype=dtype), arg.cotangent(dtype=dtype)
    first, second = jax.device_get(compiled(dy, *inputs)), jax.device_get(compiled(dy, *inputs))
    expected = float64_reference(arg, inputs, dy)
    worst = max(share_of_tolerance(a, b, dtype) for a, b in zip(first, expected, strict=True) if b is not None)
    same = all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True) if a is not None)
    return {"worst_share_of_tolerance": worst, "same_bits_twice": same, "passed": same and worst <= 1}


def float64_reference(arg: ArgSpec, inputs: tuple[Any, ...], dy: np.ndarray) -> tuple[np.ndarray | None, ...]:
    """y, dx, dspatial and dchannel, computed on the CPU."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        x, spatial, channel = (None if array is None else jnp.asarray(array.astype(np.float64)) for array in inputs)
        assert x is not None
        y = reference.forward(x, spatial, channel, arg.spec)
        operands = Operands(x, jnp.asarray(dy.astype(np.float64)), spatial, channel)
        cotangents = reference.backward(operands, cotangents_of(operands), arg.spec)
        return jax.device_get((y, *(cotangents.get(name) for name in ("x", "spatial", "channel"))))


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """A context in which kernels are traced with a row of NaN behind each of their inputs: a read beyond shows."""

    def pixel_rows(*arrays: Any) -> tuple[Any, ...]:
        return tuple(
            None if a is None else jnp.concatenate([a, jnp.full((1, a.shape[1]), jnp.nan, a.dtype)])
            for a in original(*arrays)
        )

    original = fwd.pixel_rows
    with mock.patch.object(fwd, "pixel_rows", pixel_rows), mock.patch.object(bwd, "pixel_rows", pixel_rows):
        yield
