"""PyTorch files: ours reads the official code's, and the official code loads ours with `strict=True`."""

import argparse
import collections
import copy
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx

from ddf_jax import models, torch_port
from ddf_jax.checkpoints import CheckpointError, convert, load_checkpoint, read_tensors, save_checkpoint, write_tensors
from ddf_jax.checkpoints.conversion import named_arrays

OPTIONS = {"num_classes": 7, "width": 16, "blocks": (2, 1)}


@pytest.fixture(scope="module")
def port():
    """A network after some steps, so that statistics and counters are not the initial ones."""
    torch.manual_seed(0)
    port = torch_port.create("ddf_resnet50", **OPTIONS)
    for _ in range(3):
        port(torch.randn(2, 3, 33, 17))
    return port.eval()


@pytest.fixture
def model():
    return models.create("ddf_resnet50", **OPTIONS, rngs=nnx.Rngs(0))


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in right)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar", ".safetensors"])
def test_a_state_dict_becomes_the_model_and_back(port, model, tmp_path, suffix):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(port.state_dict(), source)
    else:
        torch.save(port.state_dict(), source)
    load_checkpoint(model, source)
    save_checkpoint(model, target, naming="official")
    again = torch_port.create("ddf_resnet50", **OPTIONS).eval()
    read = safetensors.torch.load_file if suffix == ".safetensors" else torch.load
    again.load_state_dict(read(target), strict=True)
    images = torch.randn(2, 3, 33, 17)
    assert torch.equal(again(images), port(images))


def test_files_there_and_back_are_the_identity(port, tmp_path):
    torch.save(port.state_dict(), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "own.safetensors")
    convert(tmp_path / "own.safetensors", tmp_path / "out.pth")
    assert same(torch.load(tmp_path / "out.pth", weights_only=True), port.state_dict())


@pytest.mark.parametrize("name", ["fca_resnet50", "odconv_resnet50_4x", "dcd_resnet50", "axial_resnet_s"])
def test_what_official_files_hold_besides_parameters_is_made_again(name, tmp_path):
    state = torch_port.create(name, **OPTIONS).state_dict()
    torch.save(state, tmp_path / "in.pth")
    model = models.abstract(name, **OPTIONS)
    load_checkpoint(model, tmp_path / "in.pth")
    save_checkpoint(model, tmp_path / "out.pth", naming="official")
    again = torch.load(tmp_path / "out.pth")
    assert again.keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(again[key], value.to(again[key].dtype), rtol=0, atol=1e-7)


def test_half_precision_is_kept(tmp_path):
    tensors = {"fc.bias": torch.tensor([1.5, -2]).bfloat16(), "fc.weight": torch.ones(2, 3).half()}
    torch.save(tensors, tmp_path / "in.pth")
    write_tensors(tmp_path / "out.pth", read_tensors(tmp_path / "in.pth"))
    assert same(torch.load(tmp_path / "out.pth"), tensors)


def wrappers(state):
    averaged = {f"module.{name}": value for name, value in state.items()}
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    return {
        "DataParallel": (averaged, False),
        "timm": ({"state_dict": state, "args": argparse.Namespace(lr=0.1), "epoch": 3, "arch": "x"}, False),
        "timm EMA": ({"state_dict": zeros, "state_dict_ema": averaged}, True),
        "AveragedModel": ({"n_averaged": torch.tensor(5), **averaged}, False),
        "optimizer": ({"model": state, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}}, False),
    }


@pytest.mark.parametrize("kind", wrappers({}))
def test_what_training_scripts_write_loads(port, model, tmp_path, kind):
    content, ema = wrappers(port.state_dict())[kind]
    torch.save(content, tmp_path / "in.pth")
    load_checkpoint(model, tmp_path / "in.pth", ema=ema)
    assert np.array_equal(named_arrays(model)["head.bias"], port.fc.bias.detach().numpy())


class Malicious:
    """Unpickled, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        ("torch.save", r"an object of the class \w+\.mkdir with its weights, which is not read, for that could"),
        ("pickle", "not a whole PyTorch file of weights alone"),
    ],
)
def test_code_in_a_file_does_not_run(port, model, tmp_path, write, message):
    content = {**port.state_dict(), "fc.bias": Malicious(tmp_path / "proof")}
    if write == "pickle":
        (tmp_path / "in.pth").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / "in.pth")
    before = named_arrays(model)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, tmp_path / "in.pth")
    assert not (tmp_path / "proof").exists()
    assert all(np.array_equal(value, before[name]) for name, value in named_arrays(model).items())


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(port, model, tmp_path, share):
    buffer = io.BytesIO()
    torch.save(port.state_dict(), buffer)
    whole = buffer.getvalue()
    (tmp_path / "in.pth").write_bytes(whole[: int(share * len(whole))])
    before = named_arrays(model)
    with pytest.raises(CheckpointError, match=r"in\.pth is not a whole PyTorch file"):
        load_checkpoint(model, tmp_path / "in.pth")
    assert all(np.array_equal(value, before[name]) for name, value in named_arrays(model).items())


def test_a_whole_pickled_network_is_refused(port, model, tmp_path):
    torch.save(copy.deepcopy(port), tmp_path / "in.pth")
    with pytest.raises(CheckpointError, match=r"an object of the class ddf_jax\.torch_port\..*, which is not read"):
        load_checkpoint(model, tmp_path / "in.pth")


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_tensors(tmp_path / "a.pth", {"x": np.ones(3)})
    assert list(tmp_path.iterdir()) == []


def wrapped(state, head="head.", body="backbone."):
    return {(head if name.startswith("fc.") else body) + name: value for name, value in state.items()}


WRAPPINGS = {
    "numpy_scalar.pth": lambda state: {"state_dict": state, "best_acc": np.float64(71.2), "mean": np.zeros(3)},
    "lightning.ckpt": lambda state: {"state_dict": wrapped(state, "model.", "model."), "epoch": 3},
    "mmcls.pth": lambda state: {"meta": {"epoch": 1}, "state_dict": wrapped(state)},
    "net.pth": lambda state: {"net": wrapped(state, "module.", "module."), "acc": 90.1},
    "ema.pth": lambda state: {"ema": {"decay": 0.9, "module": state}, "optimizer": {}},
    "inside.pth": lambda state: {
        name.replace("layer1.0", "layer1._checkpoint_wrapped_module.0"): value for name, value in state.items()
    },
    "beside.pth": lambda state: {
        "state_dict": state,
        "history": collections.defaultdict(list, {"loss": [1.0]}),
        "args": argparse.Namespace(folder=Path("photos")),
    },
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_files_of_training_scripts_are_read(port, model, tmp_path, name):
    torch.save(WRAPPINGS[name](port.state_dict()), tmp_path / name)
    load_checkpoint(model, tmp_path / name)
    save_checkpoint(model, tmp_path / "out.pth", naming="official")
    again = torch_port.create("ddf_resnet50", **OPTIONS).eval()
    again.load_state_dict(torch.load(tmp_path / "out.pth"), strict=True)
    images = torch.randn(1, 3, 33, 17)
    assert torch.equal(again(images), port(images))


class Trainer:
    """An object that a training script saved with its weights."""


def test_a_class_that_is_not_read_is_named_without_advice_to_run_it(port, tmp_path):
    torch.save({"state_dict": port.state_dict(), "trainer": Trainer()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"an object of the class \S+\.Trainer with its weights") as refused:
        read_tensors(tmp_path / "a.pth")
    for advice in ("weights_only", "add_safe_globals", "\n"):
        assert advice not in str(refused.value)


def test_a_file_of_another_network_is_a_short_error_with_a_likely_cause(port, model, tmp_path):
    torch.save(wrapped(port.state_dict(), "detector.", "detector."), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"All of them begin with `detector\.`\.") as refused:
        load_checkpoint(model, tmp_path / "a.pth")
    assert len(str(refused.value)) < 2500
