"""PyTorch's ways that the GPU suite times: they compute what they should, compiled ones run compiled code."""

import json
import sys

import numpy as np
import pytest
import torch

from experiments.benchmarks import gpu_clock, gpu_torch
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels import oracle, suite

ARGS = ArgSpec("small", (1, 4, 5, 4)), ArgSpec("stride", (2, 7, 6, 3), FilterSpec(3, stride=2))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(gpu_clock, "REPEATS", 2)
    monkeypatch.setattr(gpu_clock, "LAUNCHES", 1)


@pytest.mark.parametrize("arg", ARGS, ids=lambda arg: arg.name)
def test_unfold_computes_the_operator(arg):
    inputs, _ = gpu_torch.tensors(arg, "float32")
    y = gpu_torch.functions(arg, inputs[0])["torch_unfold"](*inputs).permute(0, 2, 3, 1).numpy()
    suite.assert_close(y, oracle.evaluate(arg, *arg.arrays(), arg.cotangent()).y, 1e-5, "y")


def test_depthwise_is_a_mean_of_the_window():
    x = torch.ones(1, 4, 4, 5)
    y = gpu_torch.functions(ARGS[0], x)["torch_depthwise"](x, x, x)
    assert y[0, 0, 1, 1] == pytest.approx(1)
    assert y[0, 0, 0, 0] == pytest.approx(4 / 9)


def test_every_way_has_a_row_and_a_failing_one_says_why(monkeypatch):
    compiled = []

    def compile_counted(function, **options):
        def backend(module, inputs):
            compiled.append(tuple(inputs[0].shape))
            return module.forward

        return torch._dynamo.optimize(backend, nopython=True, dynamic=False)(function)

    monkeypatch.setattr(torch, "compile", compile_counted)
    monkeypatch.setattr(gpu_torch.functional, "conv2d", lambda *a: 1 / 0)
    rows = list(gpu_torch.rows(ARGS))
    assert len(rows) == 2 * 2 * 3 * 2  # calls, dtypes, ways, passes
    assert {row["implementation"] for row in rows if "error" in row} == {"torch_depthwise"}
    for row in rows:
        assert ("ZeroDivisionError" in row["error"]) if "error" in row else row["median_ms"] > 0
    assert len(compiled) == 2 * 2 * 2  # anew for each of them


def test_it_prints_a_row_a_line_and_names_what_there_is(monkeypatch, capsys):
    monkeypatch.setattr(gpu_torch, "ARG_SPECS", {"small": ARGS[0]})
    monkeypatch.setattr(gpu_torch.torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(sys, "argv", ["gpu_torch", "--shapes", "small"])
    assert gpu_torch.main() == 0
    printed = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [row["shape"] for row in printed] == ["small"] * 12
    monkeypatch.setattr(sys, "argv", ["gpu_torch", "--shapes", "no_such"])
    with pytest.raises(SystemExit, match="2"):
        gpu_torch.main()
    assert "invalid choice: 'no_such'" in capsys.readouterr().err


def test_gradients_are_those_of_the_cotangent():
    arg = ARGS[0]
    inputs, dy = gpu_torch.tensors(arg, "float32")
    leaves = [value.requires_grad_() for value in inputs]
    dx, *_ = torch.autograd.grad(gpu_torch.functions(arg, dy)["torch_unfold"](*leaves), leaves, dy)
    expected = oracle.evaluate(arg, *arg.arrays(), arg.cotangent()).x
    np.testing.assert_allclose(dx.permute(0, 2, 3, 1).numpy(), expected, rtol=1e-5, atol=1e-5)
