"""Two real processes with one device each, joined by `jax.distributed` over Gloo, train as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ddf_jax.training.train import train
from tests.ddf_jax.training.launch import tiny_recipe
from tests.ddf_jax.training.processes import ROOT, finish, losses, metrics, start

Options = tuple[str, ...]


def join() -> list[dict[str, str]]:
    """The environments of two processes that are to join each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    both = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [both | {"JAX_PROCESS_ID": index} for index in "01"]


def start_pair(
    workdir: Path, data_dir: Path, first: Options = (), second: Options = (), **both: str
) -> list["subprocess.Popen[str]"]:
    pairs = zip((first, second), join(), strict=True)
    return [start(workdir, data_dir, *options, **environment, **both) for options, environment in pairs]


def test_two_processes_train_as_one_stop_together_and_one_resumes(
    tmp_path: Path, data_dir: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
):
    workdir = tmp_path / "run"
    pair = start_pair(workdir, data_dir, second=("--signal", "SIGTERM", "--at", "step:4"))
    first, second = (finish(process, returncode=75) for process in pair)
    stopped = len(losses(workdir))
    assert 4 <= stopped < 10  # a few steps after the one that was told
    for launch in (first, second):
        assert f"Stopped at step {stopped} of 20, saved in {workdir}." in launch.err.splitlines()[-1]
    printed = [[line[:9] for line in launch.out.splitlines() if line[:6] != "[Gloo]"] for launch in (first, second)]
    assert printed == [["Compiling"], []]
    np.testing.assert_allclose(losses(workdir), losses(unbroken)[:stopped], rtol=1e-5)

    train(tiny_recipe(data_dir), workdir, devices=jax.devices()[:1])
    assert f"Resuming {workdir} from step {stopped} of 20." in capsys.readouterr().out
    np.testing.assert_allclose(losses(workdir), losses(unbroken), rtol=1e-3)
    assert [row["step"] for row in metrics(workdir)] == [row["step"] for row in metrics(unbroken)]
    assert {path.name.split(".tf")[0] for path in workdir.iterdir()} == {
        *("recipe.json", "checkpoints", "metrics.jsonl", "events.out", "curves.png", "summary.json")
    }


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("at", ["compile", "step:4", "evaluation"])
def test_the_end_of_one_process_ends_the_other_with_one_line(tmp_path: Path, data_dir: Path, killed: int, at: str):
    options: list[Options] = [(), ()]
    options[killed] = ("--signal", "SIGKILL", "--at", at)
    pair = start_pair(tmp_path / "run", data_dir, *options)
    finish(pair[killed], returncode=-signal.SIGKILL)
    end = time.monotonic()
    assert finish(pair[1 - killed], returncode=75).err == (
        f"ddf: process {killed} of 2 has ended. Start the same command everywhere: training resumes from its newest "
        "checkpoint.\n"
    )
    assert time.monotonic() - end < 30


@pytest.mark.slow
def test_a_process_that_compiles_much_longer_is_waited_for(tmp_path: Path, data_dir: Path):
    # With two devices each the sum over all of them is not one that the start of the run has made already.
    pair = start_pair(tmp_path / "run", data_dir, second=("--compile-seconds", "45"), JAX_NUM_CPU_DEVICES="2")
    for process in pair:
        finish(process)


@pytest.mark.slow
def test_the_document_of_two_processes_is_json(unbroken: Path):
    command = [sys.executable, "-m", "ddf_jax", "evaluate", str(unbroken), "--json"]
    environments = [os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | each for each in join()]
    pair = [subprocess.Popen(command, env=each, stdout=subprocess.PIPE, text=True) for each in environments]
    first, second = (finish(process).out for process in pair)
    assert json.loads(first)["processes"] == 2
    assert second == ""
