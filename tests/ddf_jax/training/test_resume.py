"""A run that is interrupted anywhere ends as if it had not been: the same bits, the same metrics."""

import dataclasses
import errno
import json
import secrets
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.record_writer import RecordWriter
from tqdm import tqdm

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError, StoppedError
from ddf_jax.training import checkpoint
from ddf_jax.training import train as loop
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.evaluate import evaluate
from ddf_jax.training.recipe import Recipe, recipe_to_json
from ddf_jax.training.resume import RunFacts, Start, find_start, restore_run
from ddf_jax.training.retention import Retention
from ddf_jax.training.run import load_run
from ddf_jax.training.train import train
from tests.ddf_jax.training.launch import GROUPS, signal_self, tiny_recipe
from tests.ddf_jax.training.processes import finish, losses, metrics, saved_bits, start


@pytest.mark.usefixtures("compiled_once")
def test_a_run_whose_disk_data_and_ornaments_fail_loses_nothing(
    tmp_path: Path, data_dir: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    workdir, device, recipe = tmp_path / "run", jax.devices()[:1], tiny_recipe(data_dir)

    def full(directory: Path) -> None:
        if directory.name == "12.partial":
            raise OSError(errno.ENOSPC, "No space left on device", str(directory / "checksums.json"))
        write_checksums(directory)

    def broken(*arguments: Any) -> Iterator[Any]:
        for batch in device_batches(*arguments):
            if batch.state_after["step"] == 19:
                raise OSError(errno.EIO, "Input/output error", "digits.array_record")
            yield batch

    def no_reader(line: str) -> None:
        raise BrokenPipeError

    write_checksums, device_batches = checkpoint.write_checksums, loop.device_batches
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_checksums", full)
        with pytest.raises(
            RunError, match=r"Cannot save the checkpoint of step 12 in .*: No space left .*json\). That of step 6 stays"
        ) as refused:
            train(recipe, workdir, devices=device)
        assert "\n" not in str(refused.value)
        assert refused.value.exit_status == 1
        assert len(saved_steps(workdir)) == 2  # and the state in hand, a step or more later
    with monkeypatch.context() as patch:
        patch.setattr(loop, "device_batches", broken)
        with pytest.raises(
            RunError,
            match=r"Stopped at step 18: Input/output error \(digits.array_record\)\. Step 18 is saved; ",
        ):
            train(recipe, workdir, devices=device)
        assert saved_steps(workdir)[-1] == 18
    monkeypatch.setattr(RecordWriter, "write", lambda *_: 1 / 0)
    monkeypatch.setattr(loop, "draw_curves", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(tqdm, "write", no_reader)
    train(recipe, workdir, devices=device)
    assert caplog.messages.count("Cannot write TensorBoard's events: division by zero.") == 1
    assert "Cannot draw the curves: division by zero." in caplog.messages
    assert_same_run(workdir, unbroken)


def assert_same_run(workdir: Path, unbroken: Path, step: int = 20) -> None:
    ours, theirs = saved_bits(workdir, step), saved_bits(unbroken, step)
    assert len(ours) > 30
    assert [name for name in ours | theirs if ours.get(name) != theirs.get(name)] == []
    assert metrics(workdir) == metrics(unbroken)
    files = [run / "checkpoints" / f"{step}" / "record.json" for run in (workdir, unbroken)]
    records = [json.loads(file.read_text()) for file in files]
    for name in ("recipe", "data", "data_info", "evaluation", "evaluated_step", "arrays"):
        assert records[0][name] == records[1][name]


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit())


def kill(workdir: Path, data_dir: Path, place: str) -> None:
    finish(start(workdir, data_dir, "--signal", "SIGKILL", "--at", place), returncode=-signal.SIGKILL)


@pytest.mark.usefixtures("compiled_once")
def test_a_run_killed_while_it_saves_and_stopped_at_any_time_ends_with_the_same_bits(
    tmp_path: Path, data_dir: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    workdir, device = tmp_path / "run", jax.devices()[:1]

    def stop(number: int, place: str, step: int) -> None:
        with monkeypatch.context() as patch:
            signal_self(patch, number, place)
            with pytest.raises(
                StoppedError, match=rf"Stopped at step {step} of 20, saved in .*The same command"
            ) as stopped:
                train(tiny_recipe(data_dir), workdir, devices=device)
        assert stopped.value.exit_status == 75
        assert saved_steps(workdir)[-1] == step

    stop(signal.SIGTERM, "compile", 0)
    kill(workdir, data_dir, "save:12")
    assert saved_steps(workdir) == [0, 6]
    assert not (workdir / "summary.json").exists()
    capsys.readouterr()
    stop(signal.SIGINT, "step:8", 8)
    assert f"Resuming {workdir} from step 6 of 20." in capsys.readouterr().out
    stop(signal.SIGTERM, "evaluation", 10)
    train(tiny_recipe(data_dir), workdir, devices=device)
    assert_same_run(workdir, unbroken)


@pytest.mark.usefixtures("compiled_once")
def test_a_run_under_all_options_ends_with_the_same_bits_after_a_stop(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    lengths = {"epochs": 0.27, "checkpoint_every": 0.135, "evaluate_every": 0}  # 6 steps, saved after 3
    recipe, device = tiny_recipe(data_dir, **GROUPS["all"], **lengths), jax.devices()[:1]
    train(recipe, tmp_path / "unbroken", devices=device)
    with monkeypatch.context() as patch:
        signal_self(patch, signal.SIGTERM, "step:4")
        with pytest.raises(StoppedError):
            train(recipe, tmp_path / "run", devices=device)
    train(recipe, tmp_path / "run", devices=device)
    assert_same_run(tmp_path / "run", tmp_path / "unbroken", step=6)
    scores = json.loads((tmp_path / "run" / "summary.json").read_text())
    averaged = evaluate(load_run(tmp_path / "run", "ema", devices=device))
    assert averaged["test_accuracy"] == scores["ema_test_accuracy"]
    assert averaged["test_loss"] == pytest.approx(scores["ema_test_loss"], rel=1e-6)
    assert len(averaged["test_confusion"]) == 10


@pytest.mark.slow
@pytest.mark.parametrize("group", [*GROUPS])
def test_a_run_killed_under_a_group_of_options_ends_with_the_same_bits(tmp_path: Path, data_dir: Path, group: str):
    options = ("--group", group)
    finish(start(tmp_path / "unbroken", data_dir, *options))
    finish(start(tmp_path / "run", data_dir, *options, "--signal", "SIGKILL", "--at", "step:14"), -signal.SIGKILL)
    assert saved_steps(tmp_path / "run") in ([6], [6, 12])  # a thread writes the second
    finish(start(tmp_path / "run", data_dir, *options))
    assert_same_run(tmp_path / "run", tmp_path / "unbroken")


@pytest.mark.slow
def test_a_run_killed_at_any_steps_ends_with_the_same_bits(tmp_path: Path, data_dir: Path, unbroken: Path):
    random = secrets.SystemRandom()
    early, late = random.randint(1, 11), random.randint(13, 18)
    print(f"killed at steps {early} and {late}")  # for the reader of a failure
    workdir = tmp_path / "run"
    for step, saved in ((early, [6] if early > 6 else []), (late, [6, 12])):
        kill(workdir, data_dir, f"step:{step}")
        assert saved_steps(workdir) == saved
    finish(start(workdir, data_dir))
    assert_same_run(workdir, unbroken)


def test_a_launch_goes_on_from_the_step_it_asks_for_once(tmp_path: Path):
    tiny = tiny_recipe(tmp_path)
    slower = dataclasses.replace(tiny, optimizer=dataclasses.replace(tiny.optimizer, learning_rate=0.02))
    checkpoints = Checkpoints(tmp_path / "checkpoints")

    def save(step: int, recipe: Recipe, *requests: int) -> None:
        history = [{"step": request, "by_request": True} for request in requests]
        record = {"recipe": json.loads(recipe_to_json(recipe)), "history": history}
        checkpoints.save(step, {"model": {"kernel": jnp.zeros(1)}}, record, Retention(newest=3))

    def start(recipe: Recipe, from_step: int | None = None, *changes: str) -> Start | None:
        return find_start(checkpoints, tmp_path, recipe, from_step=from_step, allow_change=changes)

    assert start(tiny) is None
    with pytest.raises(RunError, match=r"There is no checkpoint in .*checkpoints to go back to, of step 6"):
        start(tiny, 6)
    save(6, tiny)
    save(12, tiny)
    assert start(tiny) == (12, 12, False, [])
    assert start(tiny, 6) == (6, 12, True, [])
    change = ["optimizer.learning_rate: 0.2 -> 0.02"]
    assert start(slower, 6, "optimizer.learning_rate") == (6, 12, True, change)
    assert start(slower, None, "optimizer.learning_rate", "seed") == (12, 12, False, change)
    with pytest.raises(RunError, match=r"seed: 0 -> 3\).*--allow-change optimizer.learning_rate seed$"):
        start(dataclasses.replace(slower, seed=3), None, "seed")
    with pytest.raises(RunError, match=r"`batch_size` cannot change within a run.*--init-from .* --init-step 12"):
        start(dataclasses.replace(tiny, batch_size=32), None, "batch_size")
    with pytest.raises(RunError, match=r"There is no checkpoint 7 in .*; there are \[6, 12\]"):
        start(tiny, 7)
    save(18, slower, 6)
    assert start(slower, 6, "optimizer.learning_rate") == (18, 18, False, [])  # the same command resumes
    assert start(slower, 12, "optimizer.learning_rate") == (12, 18, True, change)
    assert start(tiny, 6) == (6, 18, True, [])


def test_other_data_are_named_and_may_be_allowed(tmp_path: Path):
    recipe, info = tiny_recipe(tmp_path), DataInfo(2, ("cat", "dog"), 3, train_size=8, eval_size=4, image_size=8)
    allowing = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, allow_changed=True))
    was, now = {"train": {"cat": "1", "dog": "2"}}, {"train": {"cat": "1", "dog": "3"}}
    checkpoints, arrays = Checkpoints(tmp_path / "checkpoints"), {"model": {"kernel": jnp.zeros(1)}}
    record = {"data": {}, "evaluation": None, "evaluated_step": None, "seconds": 1, "training_seconds": 1}
    record |= {"recipe": json.loads(recipe_to_json(recipe)), "data_info": dataclasses.asdict(info), "fingerprint": was}
    checkpoints.save(6, arrays, record)

    def restore(recipe: Recipe, info: DataInfo, fingerprint: Any) -> list[dict[str, Any]]:
        start = find_start(checkpoints, tmp_path, recipe, from_step=None, allow_change=())
        assert start is not None
        facts = RunFacts(recipe, info, fingerprint)
        return restore_run(checkpoints, tmp_path, start, facts, jax.eval_shape(lambda: arrays))[0].history

    assert restore(recipe, info, was) == []
    with pytest.raises(RunError, match=r"on other data: the train split differs in dog\..* --data.allow-changed$"):
        restore(recipe, info, now)
    assert [event["data"] for event in restore(allowing, info, now)] == ["the train split differs in dog"]
    with pytest.raises(RunError, match=r"Its model cannot take these: put .*--init-from .* --init-head fresh"):
        restore(allowing, dataclasses.replace(info, num_classes=3), now)


@pytest.mark.slow
def test_a_run_goes_back_under_another_recipe_and_a_finished_one_is_trained_on(
    tmp_path: Path, data_dir: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
):
    workdir, device, tiny = tmp_path / "run", jax.devices()[:1], tiny_recipe(data_dir)
    shutil.copytree(unbroken, workdir)
    faster = dataclasses.replace(tiny, optimizer=dataclasses.replace(tiny.optimizer, learning_rate=0.4))
    change = {"resume_from_step": 12, "allow_change": ["optimizer.learning-rate"]}
    with monkeypatch.context() as patch:
        signal_self(patch, signal.SIGTERM, "step:14")
        with pytest.raises(StoppedError):
            train(faster, workdir, devices=device, **change)
    assert saved_steps(workdir) == [12, 14]
    assert {"18.undone", "20.undone"} < {path.name for path in (workdir / "checkpoints").iterdir()}
    assert (workdir / "metrics.jsonl.undone").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    assert not (workdir / "summary.json").exists()
    train(faster, workdir, devices=device, **change)
    assert losses(workdir)[:13] == losses(unbroken)[:13]  # that of step 13 is of before its update
    assert 0 not in np.subtract(losses(workdir)[13:], losses(unbroken)[13:])
    assert load_run(workdir).recipe == faster
    longer = dataclasses.replace(faster, epochs=1.0)
    assert train(longer, workdir, devices=device, allow_change=["epochs"])["steps"] == 22
    record = json.loads((workdir / "checkpoints" / "22" / "record.json").read_text())
    assert [(event["step"], event["by_request"], event["changes"]) for event in record["history"]] == [
        (12, True, ["optimizer.learning_rate: 0.2 -> 0.4"]),
        (20, False, ["epochs: 0.9 -> 1.0"]),
    ]
    with pytest.raises(
        RunError, match=r"at step 22 already, but `epochs` 0.5 are 11 steps. Raise `epochs`, or go back"
    ):
        train(dataclasses.replace(longer, epochs=0.5), workdir, devices=device, allow_change=["epochs"])
