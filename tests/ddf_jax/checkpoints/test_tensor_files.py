"""Files are read and written as a whole or not at all, and unwrapped."""

import os
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ddf_jax.checkpoints.tensor_files import CheckpointError, read_tensors, unwrap, write_tensors

TENSORS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.half": np.array([1.5, -2], np.float16),
    "a.brain": np.array([1.5, -2], jnp.bfloat16),
    "a.double": np.array(np.pi),
    "a.count": np.array(3, np.int64),
}


def same(left, right):
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]) for name in right
    )


def test_safetensors_come_back_as_they_were(tmp_path):
    write_tensors(tmp_path / "a.safetensors", TENSORS)
    assert same(read_tensors(tmp_path / "a.safetensors"), TENSORS)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_views_are_written_as_they_look(tmp_path):
    view = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::2]
    write_tensors(tmp_path / "a.safetensors", {"view": view, "scalar": np.broadcast_to(1.0, (2, 2))})
    assert same(read_tensors(tmp_path / "a.safetensors"), {"view": view, "scalar": np.ones((2, 2))})


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"a\.safetensors is not a whole safetensors file"):
        read_tensors(path)


def test_a_missing_file_a_folder_and_another_format_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no checkpoint file .*none\.safetensors"):
        read_tensors(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="There is no checkpoint file"):
        read_tensors(tmp_path)
    (tmp_path / "a.npz").touch()
    with pytest.raises(CheckpointError, match=r"must end in one of \.safetensors, \.pth, .*, got 'a\.npz'"):
        read_tensors(tmp_path / "a.npz")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write_tensors(path, TENSORS)
    before = path.read_bytes()

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match=r"Cannot write .*a\.safetensors: No space left on device"):
        write_tensors(path, {"b": np.zeros(3)})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"Cannot write .*No such file or directory"):
        write_tensors(tmp_path / "none" / "a.safetensors", TENSORS)


def test_pytorch_files_without_torch_state_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.pth").touch()
    for attempt in (lambda: read_tensors(tmp_path / "a.pth"), lambda: write_tensors(tmp_path / "b.pth", TENSORS)):
        with pytest.raises(CheckpointError, match=r'pip install "ddf-jax\[torch\]"'):
            attempt()
    assert not (tmp_path / "b.pth").exists()


ONE, TWO = {"x.weight": np.ones(1)}, {"x.weight": np.full(1, 2.0)}


@pytest.mark.parametrize(
    ("content", "ema", "expected"),
    [
        (ONE, False, ONE),
        ({"state_dict": ONE, "epoch": 3}, False, ONE),
        ({"model": ONE, "optimizer": {"state": {}}}, False, ONE),
        ({"state_dict": ONE, "state_dict_ema": TWO}, False, ONE),
        ({"state_dict": ONE, "state_dict_ema": TWO}, True, TWO),
        ({"model_ema": TWO}, False, TWO),
        ({"state_dict": {"module.x.weight": ONE["x.weight"]}}, False, ONE),
        ({"net": {"module.x.weight": ONE["x.weight"]}, "acc": 90.1}, False, ONE),
        ({"model_state": ONE, "optimizer": {"momentum": TWO}}, False, ONE),
        ({"meta": {"epoch": 1}, "state_dict": {"model": ONE}}, False, ONE),
        ({"state_dict": ONE, "ema": {"decay": 0.9, "module": TWO}}, True, TWO),
        (ONE | {"y": "text", "z": None, "x.total_ops": np.ones(1)}, False, ONE),
        ({"module._orig_mod.x.weight": ONE["x.weight"]}, False, ONE),
        ({"n_averaged": np.array(7), "module.x.weight": ONE["x.weight"]}, False, ONE),
        ({"model.x": np.ones(1), "other.x": np.ones(1)}, False, {"model.x": np.ones(1), "other.x": np.ones(1)}),
    ],
)
def test_wrappers_are_taken_off(tmp_path, content, ema, expected):
    assert same(unwrap(content, tmp_path, ema=ema), expected)


@pytest.mark.parametrize(
    ("content", "ema", "message"),
    [
        ({}, False, "must hold arrays by name, .*; got an empty dictionary"),
        ([np.ones(1)], False, "must hold arrays by name, .*; got a list"),
        ({"state_dict": {}, "epoch": 3}, False, "; got a dictionary of state_dict: dict, epoch: int"),
        ({str(n): n for n in range(99)}, False, "a dictionary of 0: int, .* 9: int and 89 more"),
        ({"state_dict": ONE}, True, "holds no averaged weights"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, ema, message):
    with pytest.raises(CheckpointError, match=message):
        unwrap(content, tmp_path, ema=ema)


def test_the_content_tells_the_format(tmp_path):
    write_tensors(tmp_path / "a.safetensors", TENSORS)
    (tmp_path / "a.safetensors").rename(tmp_path / "a.ckpt")
    assert same(read_tensors(tmp_path / "a.ckpt"), TENSORS)


def test_a_type_that_numpy_lacks_is_named(tmp_path):
    header = b'{"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"0")
    with pytest.raises(CheckpointError, match=r"a\.safetensors holds arrays of a type that NumPy lacks"):
        read_tensors(tmp_path / "a.safetensors")


def test_other_programs_read_what_is_written(tmp_path):
    write_tensors(tmp_path / "a.safetensors", TENSORS)
    assert same(safetensors.numpy.load_file(tmp_path / "a.safetensors"), TENSORS)
