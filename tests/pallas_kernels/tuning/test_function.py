"""`autotune` measures every kernel of a function, and its configs are used where they are asked for."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels import dynamic_filter, tuning
from pallas_kernels.ops import autotune
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.autotune import Candidate
from pallas_kernels.ops.config import KernelName
from pallas_kernels.ops.device import DeviceInfo
from pallas_kernels.tuning import function

filtered = functools.partial(dynamic_filter, kernel_size=(1, 3), implementation="triton")


@jax.jit
def loss(x: jax.Array, spatial: jax.Array, channel: jax.Array) -> jax.Array:
    again = filtered(x.astype(jnp.bfloat16), spatial.astype(jnp.bfloat16), None)
    return filtered(x, spatial, channel).sum() + again.sum().astype(x.dtype)


ARRAYS = jnp.ones((2, 8, 8, 32)), jnp.ones((2, 8, 8, 1, 3)), jnp.ones((2, 3, 32))


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, KernelName]]:
    """What is measured: each config of a kernel is faster than the one before, the heuristic's first; dx fails."""
    found: list[tuple[str, KernelName]] = []
    monkeypatch.setenv(autotune.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(function, "current_device", lambda: DeviceInfo("gpu", "NVIDIA H200"))

    def measure_of(arg: ArgSpec, dtype: str) -> Callable[[Sequence[Candidate]], list[float | Exception]]:
        assert arg.x == ARRAYS[0].shape

        def seconds(kernel: KernelName) -> float | Exception:
            found.append((dtype, kernel))
            return ArithmeticError("wrong") if kernel == "dx" else 1 / found.count((dtype, kernel))

        return lambda candidates: [seconds(kernel) for kernel, _ in candidates]

    monkeypatch.setattr(function, "measure_of", measure_of)
    return found


def lowered(jitted, *arrays) -> str:
    return jitted.trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()


def test_every_kernel_of_a_function_is_measured_and_the_best_configs_are_used_within(measured, tmp_path: Path):
    gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    before = lowered(gradient, *ARRAYS)
    configs = tuning.autotune(gradient, *ARRAYS)
    assert {*measured} >= {(dtype, kernel) for dtype in ("float32", "bfloat16") for kernel in ("fwd", "dx", "dspatial")}
    kept = sorted((shape.itemsize, kernel) for shape, kernel in configs.configs)
    assert kept == [(2, "dspatial"), (2, "fwd"), (4, "dchannel"), (4, "dspatial"), (4, "fwd")]
    with configs:
        within = lowered(gradient, *ARRAYS)
    assert within != before
    assert lowered(gradient, *ARRAYS) == before
    assert configs.write().parent == tmp_path
    assert autotune.read_tuned_configs(tmp_path, "NVIDIA H200") == configs.configs
    assert "2x8x8x32 float32 dx: all " in str(configs)


def test_a_machine_without_a_gpu_is_named():
    with pytest.raises(NotImplementedError, match="Kernels are tuned on an NVIDIA GPU from Ampere on, here is: cpu"):
        tuning.autotune(loss, *ARRAYS)
