import os
import threading
from pathlib import Path

import pytest

from ddf_jax import files
from ddf_jax.errors import UserError


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "summary.json"
    files.write_json(path, {"a": 1})

    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        files.write_json(path, {"a": 2})
    assert path.read_text() == '{\n  "a": 1\n}\n'


def test_json_holds_no_nan(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "summary.json", {"a": float("nan")})


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot write to the run's folder .*/file/run: .*--workdir"):
        files.make_writable(tmp_path / "file" / "run")
    files.make_writable(tmp_path / "new" / "run")
    assert list((tmp_path / "new" / "run").iterdir()) == []


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path):
    order: list[str] = []

    def second() -> None:
        with files.locked(tmp_path / "new" / ".lock") as held:
            order.append(f"second {held}")

    with files.locked(tmp_path / "new" / ".lock") as held:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)
        order.append(f"first {held}")
    thread.join()
    assert order == ["first True", "second True"]
