"""A run that was killed before its end: with another recipe or other data, and with damaged checkpoints."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest

from ddf_jax.errors import RunError
from ddf_jax.training import train as loop
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.run import load_run
from ddf_jax.training.train import train
from tests.ddf_jax.training.launch import tiny_recipe
from tests.ddf_jax.training.processes import metrics, saved_bits, snapshot, summary_of


@pytest.fixture
def unfinished(unbroken: Path, tmp_path: Path) -> Path:
    """The unbroken run as a kill before its summary would have left it."""
    workdir = tmp_path / "run"
    shutil.copytree(unbroken, workdir)
    (workdir / "summary.json").unlink()
    return workdir


def test_a_run_is_resumed_only_with_its_own_recipe_and_data(
    unfinished: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    before, recipe = snapshot(unfinished), tiny_recipe(data_dir)
    faster = dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, learning_rate=0.4))
    with pytest.raises(
        RunError,
        match=r"recipe \(optimizer.learning_rate: 0.2 -> 0.4\). Set .*--allow-change optimizer.learning_rate$",
    ):
        train(faster, unfinished)
    describe = loop.describe
    monkeypatch.setattr(loop, "describe", lambda *data: dataclasses.replace(describe(*data), train_size=1436))
    with pytest.raises(RunError, match=r"other data: they were DataInfo.*1437.* and are DataInfo.*1436"):
        train(recipe, unfinished)
    assert snapshot(unfinished) == before


def test_damaged_checkpoints_are_skipped_while_one_is_good(
    unfinished: Path,
    unbroken: Path,
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    def damage(step: int) -> None:
        (unfinished / "checkpoints" / str(step) / "model" / "_METADATA").write_text("{}")

    check_that_rows_are_synced_before_a_checkpoint(unfinished, monkeypatch)
    (unfinished / "summary.json").write_text('{"name": "ti')
    damage(20)
    train(tiny_recipe(data_dir), unfinished, devices=jax.devices()[:1])
    skipped = f"Skipped the unreadable checkpoint {unfinished / 'checkpoints' / '20'}: model/_METADATA is not the file"
    assert skipped in caplog.text
    assert f"{unfinished / 'summary.json'} cannot be read" in caplog.text
    assert f"Resuming {unfinished} from step 18 of 20." in capsys.readouterr().out
    assert saved_bits(unfinished, 20) == saved_bits(unbroken, 20)
    assert metrics(unfinished) == metrics(unbroken)
    times = {"seconds": 0, "images_per_second": 0}
    assert summary_of(unfinished) | times == summary_of(unbroken) | times

    for step in (12, 18, 20):
        damage(step)
    for read in (lambda: train(tiny_recipe(data_dir), unfinished), lambda: load_run(unfinished)):
        with pytest.raises(
            RunError, match=r"No checkpoint in .*/run/checkpoints is readable \(20: model/_METADATA is not"
        ):
            read()
    shutil.rmtree(unfinished / "checkpoints")
    with pytest.raises(RunError, match="is finished, but its checkpoints are gone"):
        train(tiny_recipe(data_dir), unfinished)


def check_that_rows_are_synced_before_a_checkpoint(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[int, int] = {}  # bytes by inode
    fsync, save = os.fsync, Checkpoints.save

    def synchronise(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        synced[status.st_ino] = status.st_size

    def save_after_rows(self: Checkpoints, *arguments: Any) -> None:
        rows = (workdir / "metrics.jsonl").stat()
        assert synced[rows.st_ino] == rows.st_size > 0
        save(self, *arguments)

    monkeypatch.setattr(os, "fsync", synchronise)
    monkeypatch.setattr(Checkpoints, "save", save_after_rows)
