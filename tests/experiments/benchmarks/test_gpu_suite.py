"""The GPU suite keeps every row, resumes, survives crashes and ends in time."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks import gpu_suite
from experiments.benchmarks.gpu_parts import PARTS
from experiments.benchmarks.rows import append_row, read_rows

# Stands in for a part's process: what it does depends on how often it was started.
PROGRAM = """
import json, pathlib, signal, os, sys, time
name, rows, tried, options = sys.argv[3:]
folder = pathlib.Path(rows).parent
starts = folder / f"{name}.starts"
number = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (number + 1))
key = {"part": name, "implementation": "a", "shape": str(number), "dtype": "float32"}
def started(): print(json.dumps({"started": key}), flush=True)
def row(**values): print(json.dumps(key | values), flush=True)
"""


@pytest.fixture
def part_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the program that a part's process runs."""

    def set_program(source: str) -> None:
        program, script = tmp_path / "python", tmp_path / "program.py"
        script.write_text(PROGRAM + source)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setattr(gpu_suite.sys, "executable", str(program))

    return set_program


def starts(folder: Path, part: str) -> int:
    return len((folder / f"{part}.starts").read_text())


def test_rows_are_kept_and_the_schedule_is_printed(part_process, tmp_path: Path, capfd):
    part_process("print('compiling'); started(); row(passed=True); print(json.dumps({'finished': name}))")
    assert gpu_suite.main(["--out", str(tmp_path), "--quick", "--parts", "timings", "checks"]) == 0
    rows = read_rows(tmp_path / "rows.jsonl")
    assert [row["part"] for row in rows] == ["checks", "timings"]
    printed = capfd.readouterr()
    lines = printed.out.splitlines()
    schedule = [line.split() for line in lines[1:3]]
    assert schedule == [["checks", "0", "s", "70", "s", "0"], ["timings", "70", "s", "60", "s", "0"]]
    assert lines[-1].endswith("0 checks failed")
    assert "compiling" in printed.err
    assert gpu_suite.main(["--out", str(tmp_path), "--parts", "checks"]) == 0
    assert capfd.readouterr().out.splitlines()[1].split() == ["checks", "1"]


def test_a_failed_check_is_the_exit_status_until_it_passes(part_process, tmp_path: Path, capfd):
    part_process("number = 0; key['shape'] = 'odd'; started(); row(passed=starts.read_text() == 'xx')")
    assert gpu_suite.main(["--out", str(tmp_path), "--parts", "checks"]) == 1
    assert capfd.readouterr().out.splitlines()[-1].endswith("1 checks failed: a odd float32")
    assert gpu_suite.main(["--out", str(tmp_path), "--parts", "checks"]) == 0


def test_a_crashed_case_is_a_row_and_the_part_is_started_again(part_process, tmp_path: Path):
    part_process("started(); number or os.kill(os.getpid(), signal.SIGKILL); row()")
    assert gpu_suite.main(["--out", str(tmp_path), "--parts", "timings"]) == 0
    crashed, other = read_rows(tmp_path / "rows.jsonl")
    assert (crashed["shape"], crashed["error"]) == ("0", "its process ended with -9")
    assert (other["shape"], "error" in other) == ("1", False)


def test_a_part_that_cannot_start_is_a_row_and_is_not_started_again(part_process, tmp_path: Path, capfd):
    part_process("sys.exit(7)")
    assert gpu_suite.main(["--out", str(tmp_path), "--parts", "checks", "torch"]) == 1
    assert [(row["part"], row["error"]) for row in read_rows(tmp_path / "rows.jsonl")] == [
        (part, "its process ended with 7") for part in ("checks", "torch")
    ]
    assert starts(tmp_path, "checks") == 1
    assert capfd.readouterr().out.splitlines()[-1].endswith("1 checks failed: its process ended with 7")


def test_it_ends_in_time_whatever_a_part_does(part_process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.setattr(gpu_suite, "QUICK_SECONDS", 1.0)
    monkeypatch.setattr(gpu_suite, "GRACE", 0.5)
    part_process("started(); row(); started(); time.sleep(60)")
    start = time.monotonic()
    assert gpu_suite.main(["--out", str(tmp_path), "--quick", "--parts", "checks", "tune"]) == 1
    assert time.monotonic() - start < 20
    assert [row["part"] for row in read_rows(tmp_path / "rows.jsonl")] == ["checks"]
    assert "checks, tune: not all cases were reached" in capfd.readouterr().out


def test_a_slow_part_gets_its_second_turn_after_the_others(part_process, tmp_path: Path):
    part_process("sys.exit(3 if name == 'checks' and number == 0 else 0)")
    assert gpu_suite.main(["--out", str(tmp_path), "--quick", "--parts", "checks", "steps"]) == 0
    assert (starts(tmp_path, "checks"), starts(tmp_path, "steps")) == (2, 1)


def test_a_part_is_told_its_share_of_the_time_and_what_was_asked(part_process, tmp_path: Path):
    part_process("row(options=json.loads(options), platforms=os.environ.get('JAX_PLATFORMS'), tried=tried)")
    append_row(tmp_path / "rows.jsonl", {"part": "torch", "error": "before"})
    arguments = ["--quick", "--dry-run", "--shapes", "fpn_p2", "--implementations", "xla", "--parts", "torch"]
    assert gpu_suite.main(["--out", str(tmp_path), *arguments]) == 0
    _, row = read_rows(tmp_path / "rows.jsonl")
    options = row["options"]
    assert options["shapes"] == ["fpn_p2"]
    assert options["implementations"] == ["xla"]
    assert (options["quick"], options["dry_run"]) == (True, True)
    [part] = [part for part in PARTS if part.name == "torch"]
    assert 0 < options["deadline"] - time.time() <= gpu_suite.PATIENCE * part.seconds
    assert (row["platforms"], row["tried"]) == ("cpu", "1")


def test_the_estimates_fit_into_six_minutes():
    assert sum(part.seconds for part in PARTS) <= 360
    assert gpu_suite.QUICK_SECONDS + gpu_suite.GRACE < 360


@pytest.mark.slow
def test_a_dry_run_of_everything(tmp_path: Path, capfd):
    arguments = ["--out", str(tmp_path), "--dry-run"]
    assert gpu_suite.main(arguments) == 0
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {row["part"] for row in rows} >= {"checks", "timings", "steps", "tune"}
    assert not [row for row in rows if "error" in row]
    capfd.readouterr()
    assert gpu_suite.main(arguments) == 0  # everything is there
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["passed"]
