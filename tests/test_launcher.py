"""Several processes on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddf_jax.errors import UserError
from ddf_jax.launcher import environments, visible_gpus

ROOT = Path(__file__).parents[1]


def test_each_process_has_its_number_and_its_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    first, second = environments(2, 3)
    assert first["JAX_COORDINATOR_ADDRESS"] == second["JAX_COORDINATOR_ADDRESS"]
    assert [found["JAX_PROCESS_ID"] for found in (first, second)] == ["0", "1"]
    assert {found["JAX_NUM_PROCESSES"] + found["JAX_NUM_CPU_DEVICES"] for found in (first, second)} == {"23"}
    assert environments(1) == [{"JAX_NUM_CPU_DEVICES": "1"}]
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [found["CUDA_VISIBLE_DEVICES"] for found in environments(2)] == ["4,5", "6,7"]
    assert [found["CUDA_VISIBLE_DEVICES"] for found in environments(2, 1)] == ["4", "5"]
    for wrong, message in (
        ((2, 3), "There must be a GPU for each device, got 4 for 2 processes of 3"),
        ((0,), "`processes` must be at least 1, got 0"),
        ((2, 0), "`devices_per_process` must be at least 1, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            environments(*wrong)


def test_gpus_are_the_numbered_devices_of_the_driver(tmp_path: Path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ["0", "1"]
    assert visible_gpus({"JAX_PLATFORMS": "cuda,cpu"}, tmp_path) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == []


# A stand-in for `ddf_jax` shows what each process does; the real one trains in tests/ddf_jax/training.
PROGRAM = """
import os, signal, sys, time
index = os.environ["JAX_PROCESS_ID"]
print("out", index, *sys.argv[1:], flush=True)
if "fail" in sys.argv:
    print("error of", index, file=sys.stderr)
    sys.exit(2 if index == "1" or "all" in sys.argv else 75 if "stop" in sys.argv else 0)
if "wait" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    open(f"started{index}", "w").close()
    time.sleep(60)
"""


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    (folder / "ddf_jax").mkdir(exist_ok=True)
    (folder / "ddf_jax" / "__init__.py").touch()
    (folder / "ddf_jax" / "__main__.py").write_text(PROGRAM)
    source = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from ddf_jax.launcher import launch
sys.exit(launch({words!r}, 2))
"""
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", source], stdout=pipe, stderr=pipe, text=True, cwd=folder, env=environment
    )


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (("train",), 0, ""),
        (("fail", "one"), 2, "error of 0\nprocess 1: error of 1\n"),
        (("fail", "all"), 2, "error of 0\n"),
        (("fail", "stop"), 2, "error of 0\nprocess 1: error of 1\n"),  # the others are stopped
    ],
)
def test_the_first_process_is_shown_and_the_others_where_they_differ(
    tmp_path: Path, words: tuple[str, ...], status: int, error: str
):
    process = start(tmp_path, *words)
    out, found = process.communicate(timeout=60)
    assert (process.returncode, out, found) == (status, f"out 0 {' '.join(words)}\n", error)


def test_a_request_to_end_reaches_all_processes(tmp_path: Path):
    process = start(tmp_path, "wait")
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("started*"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75
