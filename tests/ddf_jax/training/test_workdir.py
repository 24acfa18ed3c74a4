"""The lock of a run's folder."""

import os
import socket
from pathlib import Path

import pytest

from ddf_jax.errors import RunError
from ddf_jax.training.workdir import RunLock


def test_one_launch_at_a_time_may_write_in_a_folder(tmp_path: Path):
    with RunLock(tmp_path) as first:
        first.acquire()
        first.acquire()
        with (
            RunLock(tmp_path) as second,
            pytest.raises(RunError) as refused,
        ):
            second.acquire()
        holder = f"process {os.getpid()} on {socket.gethostname()} since 20"
        assert str(refused.value).startswith(f"{tmp_path} is being trained by {holder}")
        assert refused.value.exit_status == 2
        assert (tmp_path / ".lock").exists()
    assert not list(tmp_path.iterdir())
    with RunLock(tmp_path) as third:
        third.acquire()


def test_what_a_killed_launch_left_locks_nothing(tmp_path: Path):
    (tmp_path / ".lock").write_text("process 1 on another since 2020")
    with RunLock(tmp_path) as lock:
        lock.acquire()
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_a_folder_that_is_not_there_is_neither_locked_nor_made(tmp_path: Path):
    with RunLock(tmp_path / "run") as lock:
        lock.acquire()
        assert not (tmp_path / "run").exists()
        (tmp_path / "run").mkdir()
        lock.acquire()
        assert (tmp_path / "run" / ".lock").exists()
