"""Random faults that need no training of their own; `python -m tests.faults` does all kinds to runs."""

import concurrent.futures
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from random import Random
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.errors import RunError
from ddf_jax.files import make_folder
from ddf_jax.training import checkpoint
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.metrics import MetricsLog
from ddf_jax.training.retention import Retention
from ddf_jax.training.train import train
from ddf_jax.training.workdir import RunLock
from tests.ddf_jax.training.launch import tiny_recipe
from tests.ddf_jax.training.processes import saved_bits
from tests.faults.damage import damage_checkpoint, tree_hash
from tests.faults.journal import Journal, Recorder
from tests.faults.power import check_cut, replay

ROWS: list[dict[str, Any]] = [{"step": step, "epoch": step / 2, "train_loss": 1 / step} for step in range(1, 6)]
HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def random() -> Random:
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")  # for the reader of a failure
    return Random(seed)


def save_steps(workdir: Path) -> None:
    """What a run does to its files: rows, and a checkpoint after every step, of which two are kept."""
    make_folder(workdir)
    log, checkpoints = MetricsLog(workdir, 0), Checkpoints(workdir / "checkpoints")
    for row in ROWS:
        log.write(**row)
        log.sync()
        values = {"model": {"kernel": jnp.full(50, row["step"], jnp.float32)}, "optimizer": {"count": jnp.int32(0)}}
        checkpoints.save(row["step"], values, {}, Retention(newest=2))
    log.close()


def recorded(root: Path) -> Journal:
    recorder = Recorder(root)
    try:
        save_steps(root / "run")
    finally:
        recorder.close()
    return recorder.journal


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Journal, list[int | None]]:
    """The journal of some saves, and the newest checkpoints that another thread found meanwhile."""
    root, ended = tmp_path_factory.mktemp("recorded"), threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        reads = threads.submit(read_until, ended, Checkpoints(root / "run" / "checkpoints"))
        journal = recorded(root)
        ended.set()
        return journal, reads.result()


def read_until(ended: threading.Event, checkpoints: Checkpoints) -> list[int | None]:
    steps = []
    while not ended.wait(0.01):
        steps.append(checkpoints.newest())
    return steps


@pytest.mark.parametrize("is_journalled", [False, True])
def test_a_power_cut_leaves_the_last_checkpoint_and_its_rows(
    recording: tuple[Journal, list[int | None]], is_journalled: bool, random: Random, tmp_path: Path
):
    journal, _ = recording
    for number, cut in enumerate(random.sample(range(len(journal.trees)), 5)):
        disk = tmp_path / f"{number}"
        replay(journal, cut, disk, random if is_journalled else None)
        newest = check_cut(journal, cut, disk / "run", ROWS)
        if newest is not None:
            expected = np.full(50, newest, np.float32).tobytes()
            assert saved_bits(disk / "run", newest)["model.kernel"] == expected


@pytest.mark.slow
@pytest.mark.parametrize("omitted", ["sync_tree", "sync_folder"])
def test_a_power_cut_costs_a_checkpoint_where_a_sync_is_left_out(
    omitted: str, random: Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoint, omitted, lambda folder: None)
    journal, lost = recorded(tmp_path), 0
    for number, cut in enumerate(random.sample(range(len(journal.trees)), 20)):
        disk = tmp_path / f"{number}"
        replay(journal, cut, disk, None)
        try:
            check_cut(journal, cut, disk / "run", ROWS)
        except AssertionError:
            lost += 1
    assert lost > 5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_damaged_checkpoints_are_never_read(count: int, random: Random, unbroken: Path, tmp_path: Path):
    folder = shutil.copytree(unbroken / "checkpoints", tmp_path / "checkpoints")
    for step in (20, 18, 12)[:count]:
        print(damage_checkpoint(folder / str(step), random))
    before = tree_hash(folder)
    checkpoints = Checkpoints(folder)
    if count < 3:
        assert checkpoints.newest() == (18, 12)[count - 1]
    else:
        with pytest.raises(RunError, match=r"No checkpoint in .* is readable \(20: "):
            checkpoints.newest()
    assert tree_hash(folder) == before


@pytest.mark.parametrize("field", ["seed", "epochs", "batch_size"])
def test_a_finished_run_is_not_that_of_another_recipe(field: str, random: Random, unbroken: Path, data_dir: Path):
    before = tree_hash(unbroken)
    with pytest.raises(RunError, match=rf"holds a run of another recipe \({field}: "):
        train(tiny_recipe(data_dir, **{field: 8 * random.randint(1, 7)}), unbroken)
    assert tree_hash(unbroken) == before


def test_a_run_that_is_saved_after_every_step_is_read_at_any_time(recording: tuple[Journal, list[int | None]]):
    _, found = recording
    steps = [step for step in found if step is not None]
    assert len({*steps}) > 1
    assert steps == sorted(steps)


def test_a_stopped_holder_keeps_the_lock_and_a_killed_one_does_not(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / ".lock"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        with RunLock(tmp_path) as lock, pytest.raises(RunError, match="is being trained by"):
            lock.acquire()
        holder.kill()
    with RunLock(tmp_path) as lock:
        lock.acquire()
