"""The small files and the lock of a run's folder."""

import errno
import os
import socket
from pathlib import Path

import pytest

from ddf_jax.errors import RunError
from ddf_jax.training.workdir import RunFolder, RunLock
from tests.ddf_jax.training.launch import TINY


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


def test_a_lock_file_that_stays_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(self: Path, missing_ok: bool) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    other = RunLock(tmp_path)
    other.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        other.__exit__()
    assert (tmp_path / ".lock").exists()
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


def test_a_summary_that_lost_a_name_to_a_flipped_bit_is_written_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = RunFolder(tmp_path)
    folder.write_summary({"stepr": 20})
    assert folder.summary(TINY.task) is None
    assert caplog.messages == [f"{tmp_path / 'summary.json'} cannot be read ('steps') and is written again."]
