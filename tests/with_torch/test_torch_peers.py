"""The peers in PyTorch compute what they should, compiled ones run compiled code, and their memory is measured."""

import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from experiments.benchmarks import gpu_cases, layers, torch_parts, torch_peers, training_cpu
from experiments.benchmarks.gpu_cases import Options
from experiments.benchmarks.gpu_parts import BY_NAME, run, working_device
from experiments.benchmarks.training_step import TrainingStep
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.tuning.timing import PASSES
from tests.pallas_kernels import oracle, suite

ARGS = ArgSpec("small", (1, 4, 5, 4)), ArgSpec("stride", (2, 7, 6, 3), FilterSpec(3, stride=2))


@pytest.mark.parametrize("arg", ARGS, ids=lambda arg: arg.name)
def test_unfold_computes_the_operator_and_its_cotangents(arg: ArgSpec):
    inputs, dy = torch_peers.tensors(arg, "float32")
    program = torch_peers.torch_program(torch_peers.peer("torch_unfold", arg, dy), inputs, dy, "forward_backward")
    y, dx, dspatial, dchannel = (tensor.detach().numpy() for tensor in program.run())
    expected = oracle.evaluate(arg, *arg.arrays(), arg.cotangent())
    suite.assert_close(y.transpose(0, 2, 3, 1), expected.y, 1e-5, "y")
    suite.assert_close(dx.transpose(0, 2, 3, 1), expected.x, 1e-5, "dx")
    assert expected.spatial is not None
    assert expected.channel is not None
    suite.assert_close(dspatial.transpose(0, 2, 3, 1)[:, :, :, None, None], expected.spatial, 1e-5, "dspatial")
    suite.assert_close(dchannel.transpose(0, 2, 1)[:, None], expected.channel, 1e-5, "dchannel")


def test_depthwise_is_a_mean_of_the_window():
    x = torch.ones(1, 4, 4, 5)
    y = torch_peers.peer("torch_depthwise", ARGS[0], x)(x, x, x)
    assert y[0, 0, 1, 1] == pytest.approx(1)
    assert y[0, 0, 0, 0] == pytest.approx(4 / 9)


@pytest.mark.parametrize("name", torch_peers.LAYERS)
def test_each_layer_runs_forward_and_backward_and_is_one_of_ours(name: str):
    assert name in layers.LAYERS
    shape = (2, 4, 5, 32)
    for which in PASSES:
        program = torch_peers.layer_program(name, shape, which)
        assert program.seconds() > 0
        assert program.peak_bytes > 4 * math.prod(shape)


def test_layers_take_turns_with_the_port_s():
    rows = layers.measure(["depthwise3x3", "dynamic_conv"], shape=(1, 4, 5, 32), rounds=1, torch=True)
    keys = [(row["implementation"], row["layer"], row["pass"]) for row in rows]
    assert [key[:2] for key in keys] == 2 * [("jax", "depthwise3x3"), ("torch", "depthwise3x3")] + 2 * [
        ("jax", "dynamic_conv")
    ]


def test_timm_s_network_takes_part_where_there_is_one_of_the_name(monkeypatch: pytest.MonkeyPatch):
    timm: Any = ModuleType("timm")
    timm.is_model = lambda name: name == "resnet18"
    timm.create_model = lambda name: torch.nn.Sequential(
        torch.nn.Conv2d(3, 10, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    assert list(training_cpu._peers("resnet18", ("torch", "timm"))) == ["torch", "timm"]
    assert list(training_cpu._peers("ddf_resnet50", ("timm",))) == []
    step = TrainingStep("resnet18", batch=2, image_size=8, dtype="float32")
    forward, train = training_cpu._peers("resnet18", ("timm",))["timm"](step)
    assert forward.seconds() > 0
    assert train.peak_bytes > forward.peak_bytes > 0


def test_an_unknown_peer_is_refused():
    with pytest.raises(ValueError, match="got 'torch_fold'"):
        torch_peers.peer("torch_fold", ARGS[0], torch.ones(1))


def test_every_case_has_a_row_and_a_failing_one_an_error(monkeypatch: pytest.MonkeyPatch):
    compiled = []

    def compile_counted(function: Any, **options: Any) -> Any:
        def backend(module: Any, inputs: Any) -> Any:
            compiled.append(tuple(inputs[0].shape))
            return module.forward

        return torch._dynamo.optimize(backend, nopython=True, dynamic=False)(function)

    monkeypatch.setattr(torch, "compile", compile_counted)
    monkeypatch.setattr(torch_peers.functional, "conv2d", lambda *a: 1 / 0)
    monkeypatch.setattr(gpu_cases, "ROUNDS", 2)
    monkeypatch.setattr(gpu_cases, "TIMED", {arg.name: arg for arg in ARGS})
    rows = [row for row in run(BY_NAME["torch"], Options(shapes=tuple(gpu_cases.TIMED)), [], 0) if "part" in row]
    assert len(rows) == 2 * 2 * 3 * 2  # calls, dtypes, peers, passes
    assert {row["implementation"] for row in rows if "error" in row} == {"torch_depthwise"}
    for row in rows:
        assert ("ZeroDivisionError" in row["error"]) if "error" in row else row["median_ms"] > 0
        assert row["versions"].startswith("torch ")
    assert len(compiled) == 2 * 2 * 2  # anew for each of them


def test_a_dry_run():
    rows = [row for row in run(BY_NAME["torch"], Options(quick=True, dry_run=True), [], 0) if "part" in row]
    assert [(row["implementation"], row["pass"]) for row in rows] == [
        (name, which)
        for name in ("torch_depthwise", "torch_compiled_unfold")
        for which in ("forward", "forward_backward")
    ]
    assert not [row for row in rows if "error" in row]


def test_quick_times_two_shapes():
    shapes = [case.key["shape"] for case in gpu_cases.torch(Options(quick=True))]
    assert list(dict.fromkeys(shapes)) == ["resnet50_56x56x64", "fpn_p2"]


def test_the_peak_holds_what_is_alive_at_once_and_forgets_what_was_released():
    megabyte = np.zeros(2**20, np.uint8)

    def allocate():
        for _ in range(3):
            first = torch.from_numpy(megabyte).clone()
            second = first.clone()
            del first, second

    assert 2 * 2**20 <= torch_parts.allocated_bytes(allocate) < 2.1 * 2**20


def test_the_peak_includes_every_tap_of_every_channel():
    inputs, dy = torch_peers.tensors(ARGS[0], "float32")
    program = torch_peers.torch_program(torch_peers.unfold, inputs, dy, "forward")
    assert program.peak_bytes > 4 * ARGS[0].spec.taps * math.prod(ARGS[0].x)
    assert program.clock == "host"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A record of the calls to a GPU that computes on the CPU and takes 2 ms a run."""
    calls: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self) -> None:
            calls.append("record")

        def synchronize(self) -> None:
            calls.append("synchronize")

        def elapsed_time(self, end: "Event") -> float:
            return 2.0 * torch_peers.LAUNCHES

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: calls.append("sleep"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 1000)
    return calls


def test_on_a_gpu_launches_between_two_events_are_timed(cuda: list[str]):
    x = torch.ones(2, 3)

    def function(x: Any, spatial: Any, channel: Any) -> torch.Tensor:
        cuda.append("launch")
        return x * spatial * channel

    dy: Any = SimpleNamespace(device=SimpleNamespace(type="cuda"), nbytes=100)
    program = torch_peers.torch_program(function, (x, x, x), dy, "forward")
    assert (program.clock, program.peak_bytes) == ("events", 900)
    cuda.clear()
    assert program.seconds() == pytest.approx(2e-3)
    assert cuda == ["sleep", "record", *["launch"] * torch_peers.LAUNCHES, "record", "synchronize"]


def test_the_device_is_the_gpu_that_has_just_computed(monkeypatch: pytest.MonkeyPatch):
    assert working_device("torch") == "cpu"
    computed = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda shape, device: computed.append(device) or zeros(shape))
    assert working_device("torch") == "NVIDIA H200"
    assert computed == ["cuda"]
