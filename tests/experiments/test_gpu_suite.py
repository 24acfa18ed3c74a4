"""The suite that runs where a GPU is measures, finds errors and goes on past what fails."""

import jax
import jax.numpy as jnp
import pytest

from experiments import gpu_suite
from experiments.benchmarks import gpu_clock
from pallas_kernels.ops import xla
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.heuristics import backward_kernels

SMALL = ArgSpec("small", (1, 4, 5, 4))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(gpu_clock, "REPEATS", 2)
    monkeypatch.setattr(gpu_clock, "LAUNCHES", 1)
    monkeypatch.setattr(gpu_suite.importlib.util, "find_spec", lambda name: None)  # without torch


def test_right_gradients_pass_and_wrong_ones_do_not(monkeypatch):
    assert all(row["passed"] for row in gpu_suite.check_rows(["xla"], (SMALL,)))
    right = xla.backward
    monkeypatch.setattr(
        xla, "backward", lambda *a: right(*a)._replace(x=right(*a).x * jnp.bfloat16(1.01).astype(a[1].dtype))
    )
    jax.clear_caches()
    assert not any(row["passed"] for row in gpu_suite.check_rows(["xla"], (SMALL,)))
    jax.clear_caches()


def test_a_kernel_that_does_not_run_fails_its_checks_alone():
    rows = list(gpu_suite.check_rows(["triton", "xla"], (SMALL,)))
    assert [row["passed"] for row in rows] == [False, True] * 3
    assert rows[0]["error"].startswith("NotImplementedError: implementation='triton' runs on NVIDIA GPUs")


@pytest.mark.parametrize("dtype", gpu_suite.UNITS)
def test_every_kernel_is_checked(dtype):
    shapes = [ArgShape.of(*arg.structs(dtype), arg.spec) for arg in gpu_suite.CHECKED]
    assert {kernel for shape in shapes for kernel in backward_kernels(shape)} == {
        "dx",
        "dspatial",
        "dchannel",
        "dfilters",
    }


def test_the_kernels_find_nan_behind_their_arrays():
    x = jnp.ones((1, 2, 2, 3))
    with gpu_suite.poisoned():
        rows, _, _ = gpu_suite.bwd.pixel_rows(x, None, None)
        assert rows.shape == (5, 3)
        assert jnp.isnan(rows[4]).all()
    assert gpu_suite.fwd.pixel_rows(x, None, None)[0].shape == (4, 3)


def test_every_peer_has_a_row_and_a_failing_one_says_why():
    rows = list(gpu_suite.timing_rows([SMALL], ["xla", "no_such_implementation"]))
    names = {row["implementation"] for row in rows}
    assert names == {"xla", "no_such_implementation", "xla_unfold", "xla_depthwise"}
    assert len(rows) == len(names) * 2 * 2  # two dtypes, two passes
    for row in rows:
        assert ("error" in row) == (row["implementation"] == "no_such_implementation"), row
        assert "error" in row or row["median_ms"] > 0


def test_rows_of_torch_get_their_share_and_what_ends_it_is_a_row_too(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_suite.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(gpu_suite.sys, "executable", "false")
    [failed] = gpu_suite.torch_rows(["small"])
    assert failed == {"implementation": "torch", "error": "-m experiments.benchmarks.gpu_torch ended with 1"}
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho compiling\necho '{\"shape\": \"'$4'\"}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(gpu_suite.sys, "executable", str(program))
    assert list(gpu_suite.torch_rows(["small"])) == [{"shape": "small"}]
    measured = {"implementation": "torch_unfold", "shape": "small", "dtype": "float32", "pass": "forward"}
    rows = list(gpu_suite.timing_rows([SMALL], [], [failed, measured | {"median_ms": 1.0}]))
    assert rows[0].items() >= failed.items()
    elements = 4 * 5 * 4 * 2 + 4 * 5 * 9 + 4 * 9  # x and y, both filters
    assert rows[1]["share_of_copy_bandwidth"] == pytest.approx(4 * elements / 1e-3 / rows[1]["copy_bandwidth"])
    assert {"device", "driver", "jax", "date"} <= rows[0].keys() & rows[1].keys()


def test_the_unfold_formulation_computes_the_operator():
    x, spatial, channel = SMALL.arrays()
    assert jnp.allclose(gpu_suite.unfold(SMALL.spec, x, spatial, channel), SMALL.call(x, spatial, channel), atol=1e-5)
