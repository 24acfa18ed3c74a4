"""Two real processes with one device each, joined by `jax.distributed` over Gloo, train as one."""

import socket
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from ddf_jax.training.train import train
from tests.ddf_jax.training.launch import tiny_recipe
from tests.ddf_jax.training.processes import finish, losses, metrics, start


def start_pair(workdir: Path, data_dir: Path, *options_of_second: str) -> list["subprocess.Popen[str]"]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return [
        start(
            workdir,
            data_dir,
            *options,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
        )
        for index, options in enumerate(((), options_of_second))
    ]


def test_two_processes_train_as_one_stop_together_and_one_resumes(
    tmp_path: Path, data_dir: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
):
    workdir = tmp_path / "run"
    pair = start_pair(workdir, data_dir, "--signal", "SIGTERM", "--at", "step:4")
    first, second = (finish(process, returncode=75) for process in pair)
    stopped = len(losses(workdir))
    assert 4 <= stopped < 10  # a few steps after the one that was told
    for launch in (first, second):
        assert f"Stopped at step {stopped} of 20, saved in {workdir}." in launch.err.splitlines()[-1]
    for launch in (first, second):
        assert [line for line in launch.out.splitlines() if not line.startswith("[Gloo]")] == []
    np.testing.assert_allclose(losses(workdir), losses(unbroken)[:stopped], rtol=1e-5)

    train(tiny_recipe(data_dir), workdir, devices=jax.devices()[:1])
    assert f"Resuming {workdir} from step {stopped} of 20." in capsys.readouterr().out
    np.testing.assert_allclose(losses(workdir), losses(unbroken), rtol=1e-3)
    assert [row["step"] for row in metrics(workdir)] == [row["step"] for row in metrics(unbroken)]
    assert {path.name.split(".tf")[0] for path in workdir.iterdir()} == {
        *("recipe.json", "checkpoints", "metrics.jsonl", "events.out", "curves.png", "summary.json")
    }
