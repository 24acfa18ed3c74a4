import dataclasses
import errno
import gc
import json
import logging
import os
import resource
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ddf_jax import files
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.devices import batch_split, data_mesh, replicated
from ddf_jax.training.retention import Retention

TWO = Retention(newest=2)


def trees(seed: int = 0) -> dict[str, Any]:
    """What a run saves: floats of two widths, integers, a random key, lists as dictionaries of numbers."""
    a, b, c = jax.random.split(jax.random.key(seed), 3)
    model = {"blocks": {0: {"kernel": jax.random.normal(a, (3, 5))}, 1: {"kernel": jax.random.normal(b, (70, 80))}}}
    rngs = {"key": c, "count": jnp.uint32(seed)}
    return {"model": model | {"rngs": rngs}, "optimizer": {"trace": jnp.full((3, 5), jnp.nan, jnp.bfloat16)}}


def abstract(values: dict[str, Any], devices: int = 8) -> dict[str, Any]:
    sharding = replicated(data_mesh(jax.devices()[:devices]))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), values)


def assert_same_bits(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("devices", [8, 4, 1])
def test_eight_devices_write_what_fewer_read(tmp_path: Path, devices: int):
    values = jax.device_put(trees(), replicated(data_mesh()))
    values["optimizer"]["split"] = jax.device_put(jnp.arange(24.0), batch_split(data_mesh()))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, values, {"data": {"step": 7}, "seconds": 1 / 3})
    wanted = abstract(values, devices)
    assert checkpoints.newest() == 7
    restored = checkpoints.load(7, wanted)
    assert_same_bits(restored, values)
    for leaf in jax.tree.leaves(restored):
        assert leaf.sharding == replicated(data_mesh(jax.devices()[:devices]))
    record = checkpoints.record(7)
    assert (record["data"], record["seconds"]) == ({"step": 7}, 1 / 3)
    assert_same_bits(checkpoints.load(7, {"model": wanted["model"]}), {"model": values["model"]})


def test_a_resumed_run_does_not_touch_what_was_saved(tmp_path: Path):
    values = trees()
    saved = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), values)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, values, {})
    move_on = jax.jit(
        lambda tree: jax.tree.map(lambda x: x + 1 if jnp.issubdtype(x.dtype, jnp.number) else x, tree), donate_argnums=0
    )
    for _ in range(3):
        values = move_on(values)
    assert_same_bits(checkpoints.load(1, abstract(saved)), saved)


def test_only_the_newest_are_kept(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10, 15):
        checkpoints.save(step, trees(step), {}, TWO)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "15"]


def test_a_folder_without_checkpoints_has_none(tmp_path: Path):
    assert Checkpoints(tmp_path / "checkpoints").newest() is None


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


DAMAGE = {
    "a bit of an array": lambda folder: flip_a_bit(largest(folder / "model")),
    "half an array": lambda folder: largest(folder / "model").write_bytes(largest(folder / "model").read_bytes()[:99]),
    "a lost array": lambda folder: largest(folder / "model").unlink(),
    "a bit of the record": lambda folder: flip_a_bit(folder / "record.json"),
    "a foreign file": lambda folder: (folder / "model" / "new").touch(),
    "lost checksums": lambda folder: (folder / "checksums.json").unlink(),
    "empty checksums": lambda folder: (folder / "checksums.json").write_text(""),
    "wrong checksums": lambda folder: (folder / "checksums.json").write_text("{}"),
    "an empty folder": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, trees(5), {}, TWO)
    checkpoints.save(10, trees(10), {}, TWO)
    DAMAGE[damage](tmp_path / "10")
    assert checkpoints.newest() == 5
    assert_same_bits(checkpoints.load(5, abstract(trees())), trees(5))
    [warning] = caplog.messages
    assert warning.startswith(f"Skipped the unreadable checkpoint {tmp_path / '10'}: ")
    assert "\n" not in warning
    assert checkpoints.readable(5) == 5
    with pytest.raises(RunError, match=f"The checkpoint {tmp_path / '10'} is not readable: "):
        checkpoints.readable(10)
    with pytest.raises(RunError, match=r"no checkpoint 7 in .*; there are \[5, 10\]"):
        checkpoints.readable(7)

    checkpoints.set_aside_after(5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10.unreadable", "5"]
    checkpoints.save(10, trees(11), {}, TWO)
    assert checkpoints.newest() == 10
    assert_same_bits(checkpoints.load(10, abstract(trees())), trees(11))


def test_nothing_but_damaged_checkpoints_is_an_error_and_changes_nothing(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10):
        checkpoints.save(step, trees(), {}, TWO)
        (tmp_path / str(step) / "record.json").unlink()
    with pytest.raises(
        RunError, match=r"No checkpoint in .* is readable \(10: record.json is missing; 5: record.json is"
    ):
        checkpoints.newest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "5"]


def test_an_abandoned_write_is_no_checkpoint_and_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoints = Checkpoints(tmp_path)

    def die(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(5, trees(), {})
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["5.partial"]
    assert checkpoints.newest() is None
    checkpoints.save(6, trees(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["6"]


def test_an_older_checkpoint_that_cannot_be_removed_fails_no_save_and_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, trees(5), {})

    def fail(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "record.json")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", fail)
        checkpoints.save(10, trees(10), {})
    assert caplog.messages == [f"Cannot remove {tmp_path / '5'}: Read-only file system (record.json)."]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "5.removed"]
    (tmp_path / "15.partial" / "model").mkdir(parents=True)
    checkpoints.set_aside_after(10)
    assert [path.name for path in tmp_path.iterdir()] == ["10"]


def test_a_write_that_fails_in_a_thread_of_orbax_is_raised_and_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = jax.random.normal(jax.random.key(0), (200, 200))
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(ValueError, match="File too large"):
            Checkpoints(tmp_path).save(5, {"model": {f"{i}": noise + i for i in range(8)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()
    assert "Traceback" not in capfd.readouterr().err


def test_what_follows_an_error_of_orbax_is_not_printed_but_the_rest_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    Checkpoints(tmp_path).save(5, trees(), {})
    for path in (ocp.__file__, __file__):
        logging.getLogger("absl").handle(logging.LogRecord("absl", logging.ERROR, path, 1, f"of {path}", None, None))
    for cause in ("NOT_FOUND [tensorstore_spec='…']", "See full TensorStore details", "mine"):
        logging.getLogger("asyncio").error("Future exception was never retrieved: %s", cause)
    assert caplog.messages == [f"of {__file__}", "Future exception was never retrieved: mine"]


def test_everything_is_synced_before_a_checkpoint_gets_its_name_and_that_before_the_older_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[Path] = []
    events: list[str] = []
    fsync, rename, rmtree = os.fsync, Path.rename, shutil.rmtree

    def synchronise(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        if synced[-1] == tmp_path / "run" / "checkpoints":
            events.append("folder synced")

    def name(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            last = {path: index for index, path in enumerate(synced)}
            inside = [self, *self.rglob("*")]
            assert not [path for path in inside if path not in last]
            for path in inside:  # a folder's entry is durable where its sync followed its files'
                assert path == self or last[path] < last[path.parent], path
        events.append(f"{self.name} -> {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synchronise)
    monkeypatch.setattr(Path, "rename", name)
    monkeypatch.setattr(shutil, "rmtree", lambda path: (events.append(f"{path.name} deleted"), rmtree(path)))
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save(5, trees(5), {})
    assert {tmp_path, tmp_path / "run"} <= set(synced)  # which hold the names of the new folders
    events.clear()
    checkpoints.save(10, trees(10), {})
    assert events == ["10.partial -> 10", "folder synced", "5 -> 5.removed", "5.removed deleted"]


def test_a_disk_that_fails_for_a_moment_is_asked_again_and_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10):
        checkpoints.save(step, trees(), {}, TWO)
    monkeypatch.setattr(files, "_DELAYS", (0.0, 0.0))
    failures = [OSError(errno.ESTALE, "stale file handle"), PermissionError(errno.EACCES, "permission denied")]
    open_file = Path.open

    def fail(self: Path, *arguments: Any, **options: Any) -> Any:
        if failures and self.name == "record.json":
            raise failures.pop()
        return open_file(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    assert checkpoints.newest() == 10
    assert not failures
    failures += 3 * [OSError(errno.EIO, "input/output error")]
    with pytest.raises(RunError, match=r"cannot be read now \(.*input/output error\). None was changed: try again"):
        checkpoints.newest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "5"]


def test_a_checkpoint_of_another_model_is_refused_by_the_name_of_an_array(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, trees(), {})
    other = abstract(trees())
    other["model"]["blocks"][1]["kernel"] = jax.ShapeDtypeStruct((7, 8), jnp.float32)
    other["model"]["head"] = jax.ShapeDtypeStruct((7,), jnp.float32)
    with pytest.raises(
        RunError, match=r"`model.blocks.1.kernel` is float32\[70, 80\] there and float32\[7, 8\] here \(2 "
    ):
        checkpoints.load(5, other)


def test_everything_but_the_arrays_is_json(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, trees(), {"name": "x"})
    assert (
        json.loads((tmp_path / "5" / "record.json").read_text())["arrays"]["model.blocks.0.kernel"] == "float32[3, 5]"
    )
    assert json.loads((tmp_path / "5" / "checksums.json").read_text()).keys() >= {"record.json", "model/_METADATA"}


def test_the_data_of_a_run_are_read_back_also_from_an_earlier_version(tmp_path: Path):
    info = DataInfo(2, ("a", "b"), channels=3, train_size=8, eval_size=4, image_size=16, eval_shape=(20, 27))
    checkpoints = Checkpoints(tmp_path)
    fields = dataclasses.asdict(info)
    del fields["stuff_names"]
    checkpoints.save(5, trees(), {"data_info": fields | {"scale": 4}})
    assert checkpoints.data_info(5) == info
