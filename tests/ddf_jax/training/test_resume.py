"""A run that is interrupted anywhere ends as if it had not been: the same bits, the same metrics."""

import errno
import json
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
import tensorboardX
from tqdm import tqdm

from ddf_jax.errors import RunError, StoppedError
from ddf_jax.training import checkpoint
from ddf_jax.training import train as loop
from ddf_jax.training.train import train
from tests.ddf_jax.training.launch import signal_self, tiny_recipe
from tests.ddf_jax.training.processes import finish, metrics, saved_bits, start


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
            if batch.state_after["step"] == 15:
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
        assert saved_steps(workdir) == [6]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "device_batches", broken)
        with pytest.raises(
            RunError,
            match=r"Stopped at step 14: Input/output error \(digits.array_record\)\. Step 14 is saved; ",
        ):
            train(recipe, workdir, devices=device)
        assert saved_steps(workdir) == [6, 12, 14]
    monkeypatch.setattr(tensorboardX.SummaryWriter, "add_scalar", lambda *_: 1 / 0)
    monkeypatch.setattr(loop, "draw_curves", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(tqdm, "write", no_reader)
    train(recipe, workdir, devices=device)
    assert caplog.messages.count("Cannot write TensorBoard's events: division by zero.") == 1
    assert "Cannot draw the curves: division by zero." in caplog.messages
    assert_same_run(workdir, unbroken)


def assert_same_run(workdir: Path, unbroken: Path) -> None:
    ours, theirs = saved_bits(workdir, 20), saved_bits(unbroken, 20)
    assert len(ours) > 30
    assert [name for name in ours | theirs if ours.get(name) != theirs.get(name)] == []
    assert metrics(workdir) == metrics(unbroken)
    records = [json.loads((run / "checkpoints" / "20" / "record.json").read_text()) for run in (workdir, unbroken)]
    for name in ("recipe", "data", "data_info", "evaluation", "evaluated_step", "arrays"):
        assert records[0][name] == records[1][name]


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit())


def kill(workdir: Path, data_dir: Path, place: str) -> None:
    finish(start(workdir, data_dir, "--signal", "SIGKILL", "--at", place), returncode=-signal.SIGKILL)


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
