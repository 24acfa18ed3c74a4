"""Every model against its port: the numbers are the same, and a difference is found and named."""

import json
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ddf_jax import models, torch_port
from ddf_jax.cli import main
from ddf_jax.verify import draw_errors, format_table, verify
from ddf_jax.verify.random_inputs import RandomBatch
from ddf_jax.verify.torch_inputs import break_ties
from ddf_jax.verify.trace import TRACE_KINDS
from pallas_kernels.ops import choice


def assert_passes(*arguments, **options):
    [report] = verify(*arguments, **options)
    assert report.passed, format_table([report])
    return report


def test_every_model_with_official_names_has_a_port():
    families = ("resnet*", "ddf_resnet*", "ddf_add_*", "rednet*", "se_*", "eca_*", "resnext*", "res2net*", "san*")
    families += ("fca_*", "odconv_*", "dcd_*", "axial_*", "nat_*")
    assert set(torch_port.list_models()) == {name for family in families for name in models.list_models(family)}


PORTS = torch_port.list_models()
ONE_OF_EACH_FAMILY = ("resnet18", "resnet50", "ddf_resnet18", "ddf_resnet50", "ddf_add_resnet50")
FULL_SIZE = (
    "resnet50", "ddf_resnet50", "ddf_add_resnet50", "rednet26", "se_resnet50", "eca_resnet50", "resnext50_32x4d",
    "res2net50_26w_4s", "nat_mini",
)  # fmt: skip


def slow_but(fast: Collection[str]) -> list[Any]:
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in PORTS]


# The others differ in depth, or are compared small in test_variants.
@pytest.mark.parametrize("name", slow_but(ONE_OF_EACH_FAMILY))
def test_every_number_is_the_ports(name):
    assert_passes(name, dtype="float64")


@pytest.mark.parametrize("name", slow_but(["resnet18", "ddf_resnet50"]))
def test_in_float32_too(name):
    assert_passes(name, dtype="float32")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", FULL_SIZE)
def test_at_full_size_too(name, dtype):
    assert_passes(name, dtype=dtype, size=(224, 224))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_small_images_and_other_sizes_too(dtype):
    options = {"stem": "small", "width": 32, "blocks": (1, 1, 1), "in_channels": 1}
    assert_passes("ddf_resnet18", dtype=dtype, size=(9, 8), batch=16, options=options)


def test_ties_are_broken():
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.relu = nn.MaxPool2d(3, 2, padding=1), nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.pool(x) - 1.7) + nn.functional.adaptive_avg_pool2d(x, 1)

    images = np.random.RandomState(0).uniform(1, 2, (2, 32, 48, 3))
    images[0, 8, 10:12] = 5.0  # in one window, and in no other with a larger one
    batch = RandomBatch(images, np.zeros(2, np.int64))
    apart = break_ties(Pool(), {}, batch, within=1e-5).images
    windows = torch.from_numpy(apart).permute(0, 3, 1, 2)
    windows = nn.functional.pad(windows, [1] * 4, value=-torch.inf).unfold(2, 3, 2).unfold(3, 3, 2).flatten(-2)
    first, second = windows.topk(2).values.unbind(-1)
    assert (first - second).min() >= 1e-5 * windows.max()
    assert (first - 1.7).abs().min() >= 1e-5 * (windows.max() - 1.7)
    moved = np.abs(apart - images).max(-1) > 0
    assert moved[0, 8, 10:12].all()
    assert 0 < moved.mean() < 0.5
    np.testing.assert_allclose(apart, images, atol=0.1)


SMALL = {"width": 16, "blocks": (1, 1), "num_classes": 5}


@pytest.mark.parametrize("name", ["ddf_resnet50", "ddf_add_resnet50"])
@pytest.mark.parametrize("implementation", ["xla", "reference", "triton_interpreted"])
def test_every_implementation_of_the_operator_gives_the_same_numbers(name, implementation, monkeypatch):
    monkeypatch.setitem(choice.IMPLEMENTATIONS, "triton_interpreted", "experiments.benchmarks.interpreted")
    dtype = "float32" if implementation == "triton_interpreted" else "float64"
    options = {"width": 16, "blocks": (1, 1)}
    assert_passes(name, dtype=dtype, size=(33, 17), implementation=implementation, options=options)


def test_every_kind_of_layer_is_compared():
    [report] = verify("ddf_resnet50", size=(33, 17), options={"width": 16, "blocks": (1, 1)})
    block = ("conv1", "bn1", "conv2", "conv2.spatial_branch", "conv2.channel_branch", "bn2", "conv3", "bn3")
    expected = {
        "conv1",
        "bn1",
        "fc",
        "logits",
        "layer1.0",
        "layer1.0.downsample",
        *(f"layer1.0.{name}" for name in block),
    }
    assert expected <= report.errors["evaluation"].keys()
    assert report.errors["evaluation"].keys() == report.errors["training"].keys()
    port = torch_port.create("ddf_resnet50", width=16, blocks=(1, 1))
    parameters = {name for name, _ in port.named_parameters()}
    statistics = {name for name, value in port.named_buffers() if value.is_floating_point()}
    assert report.errors["gradient"].keys() == {"input", *parameters}
    assert report.errors["step"].keys() == parameters
    assert report.errors["statistics"].keys() == statistics


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (lambda port: setattr(port.layer1[0], "act1", nn.GELU()), "layer1.0.conv2"),
        (lambda port: setattr(port.layer1[0].conv2, "combine", "add"), "layer1.0.conv2"),
        (lambda port: setattr(port.layer2[0].bn2, "eps", 1e-3), "layer2.0.bn2"),
        (lambda port: setattr(port.maxpool, "padding", 0), "layer1.0"),
    ],
)
def test_a_difference_shows_from_its_layer_on(change, first, monkeypatch):
    create = torch_port.create

    def changed(*arguments, **options):
        port = create(*arguments, **options)
        change(port)
        return port

    monkeypatch.setattr(torch_port, "create", changed)
    [report] = verify("ddf_resnet50", size=(33, 17), options={"width": 16, "blocks": (1, 1)})
    assert not report.passed
    assert report.as_json()["passed"] is False
    if first == "layer1.0":  # every layer behind the pool has another shape, so only what has none can be compared
        assert report.errors["evaluation"].keys() <= {"conv1", "bn1", "fc", "logits"} | {
            name for name in report.errors["evaluation"] if "channel_branch" in name
        }
        return
    wrong = [name for name, error in report.errors["evaluation"].items() if error > report.tolerance]
    assert wrong[0].startswith(first), wrong
    assert "FAILED" in format_table([report])


def test_a_wrong_running_variance_shows_only_there(monkeypatch):
    create = torch_port.create

    def changed(*arguments, **options):
        port = create(*arguments, **options)
        port.bn1.momentum = 0.2
        return port

    monkeypatch.setattr(torch_port, "create", changed)
    [report] = verify("resnet18", size=(33, 17), options={"width": 16, "blocks": (1, 1)})
    assert report.worst[0].startswith("statistics bn1.running_")
    assert {kind for kind in TRACE_KINDS if max(report.errors[kind].values()) > report.tolerance} == {"statistics"}


def test_a_checkpoint_is_compared_with_its_own_weights(tmp_path):
    torch.manual_seed(0)
    port = torch_port.create("ddf_resnet50", **SMALL)
    for _ in range(3):
        port(torch.randn(4, 3, 33, 17))
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in port.state_dict().items()}}, tmp_path / "a.pth"
    )
    options = {"width": 16, "blocks": (1, 1)}
    assert_passes("ddf_resnet50", checkpoint=tmp_path / "a.pth", size=(33, 17), options=options)
    with pytest.raises(ValueError, match=r"a\.pth does not fit the model"):
        verify("ddf_resnet26", checkpoint=tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"A checkpoint is of one model, but 'ddf_\*' names 9"):
        verify("ddf_*", checkpoint=tmp_path / "a.pth")


def test_a_name_without_a_port_lists_those_that_have_one():
    with pytest.raises(ValueError, match=r"No model with a PyTorch port is named 'resnet51'\. Did you mean 'resnet"):
        verify("resnet51")


def test_what_is_written(tmp_path):
    reports = verify("resnet18", size=(33, 17), options={"width": 16, "blocks": (1, 1)})
    [row] = json.loads(json.dumps([report.as_json() for report in reports], allow_nan=False))
    assert row.keys() == {"model", "dtype", "size", "passed", "tolerance", "worst"}
    assert (row["model"], row["dtype"], row["size"], row["passed"], row["tolerance"]) == (
        "resnet18",
        "float64",
        [33, 17],
        True,
        1e-9,
    )
    assert row["worst"].keys() == {"what", "relative_error"}
    draw_errors(reports, tmp_path / "errors.png")
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
    assert np.isfinite(row["worst"]["relative_error"])


def test_the_command_prints_and_draws(tmp_path, capsys):
    assert main(["verify", "resnet18", "--size", "33", "17", "--plot", str(tmp_path / "errors.png")]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["model", "dtype", "size"]
    assert row.startswith("resnet18  float64  33×17")
    assert " passed " in row
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
