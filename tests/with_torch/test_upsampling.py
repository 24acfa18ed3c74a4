"""DDF-Up and CARAFE against the port's, in float64: values, and the gradients of inputs and of every parameter."""

from typing import Any

import numpy as np
import pytest
import torch

from ddf_jax import torch_port
from ddf_jax.verify import format_table, verify


def assert_passes(name, **options):
    [report] = verify(name, size=(5, 3), options=options)
    parameters = "spatial_branch" if name == "ddf_up" else "content_encoder"
    assert any(key.startswith(parameters) for key in report.errors["gradient"])
    assert report.errors["gradient"].keys() >= {"input"}
    assert ("guidance" in report.errors["gradient"]) == ("guidance_channels" in options)
    assert report.passed, format_table([report])


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 1, "heads": 2},
        {"scale": 2, "combine": "add"},
        {"scale": 2, "kernel_size": 5, "dilation": 2, "heads": 4, "guidance_kernel_size": 1},
        {"scale": 3, "heads": 2, "guidance_kernel_size": 5},
        {"scale": 4},
        {"scale": 1, "guidance_channels": 5, "combine": "add"},
        {"scale": 2, "guidance_channels": 5, "heads": 2, "guidance_kernel_size": 3},
        {"scale": 3, "guidance_channels": 3},
        {"scale": 4, "guidance_channels": 3, "heads": 4},
    ],
    ids=str,
)
def test_ddf_up_is_the_ports(options):
    assert_passes("ddf_up", squeeze_ratio=0.4, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 1, "groups": 2},
        {"scale": 2},
        {"scale": 3, "kernel_size": 3, "groups": 4, "encoder_kernel_size": 5, "encoder_dilation": 2},
        {"scale": 4, "kernel_size": 3, "encoder_kernel_size": 1},
    ],
    ids=str,
)
def test_carafe_is_the_ports(options):
    assert_passes("carafe", compressed_channels=6, **options)


@pytest.mark.parametrize("name", ["ddf_up", "ddf_up_guided", "carafe"])
def test_the_table_of_comparisons_has_them_in_float32_too(name):
    [report] = verify(name, dtype="float32", size=(7, 5))
    assert report.passed, format_table([report])


def test_a_difference_is_found_and_named(monkeypatch):
    create = torch_port.CARAFE

    def scaled(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        return output * 1.001

    def changed(*arguments, **options):
        port = create(*arguments, **options)
        port.content_encoder.register_forward_hook(scaled)
        return port

    monkeypatch.setattr(torch_port, "CARAFE", changed)
    [report] = verify("carafe", size=(5, 3))
    assert not report.passed
    table = format_table([report]).splitlines()
    assert table[1].startswith("carafe")
    assert "FAILED" in table[1]


def test_carafe_has_mmcvs_names():
    shapes = {name: tuple(value.shape) for name, value in torch_port.CARAFE(16, groups=2).named_parameters()}
    assert shapes == {
        "channel_compressor.weight": (64, 16, 1, 1),
        "channel_compressor.bias": (64,),
        "content_encoder.weight": (200, 64, 3, 3),
        "content_encoder.bias": (200,),
    }


def test_carafe_of_equal_logits_is_the_mean_of_what_it_sees():
    carafe = torch_port.CARAFE(2, scale=2, kernel_size=3).double()
    torch.nn.init.zeros_(carafe.content_encoder.weight)
    assert carafe.content_encoder.bias is not None
    torch.nn.init.zeros_(carafe.content_encoder.bias)
    x = torch.tensor(np.random.RandomState(0).standard_normal((1, 2, 3, 5)))
    mean = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    torch.testing.assert_close(carafe(x), mean.repeat_interleave(2, 2).repeat_interleave(2, 3))
