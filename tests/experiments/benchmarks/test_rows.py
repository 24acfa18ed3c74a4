"""Rows: what they hold, and a file of them that a crash cannot spoil."""

import subprocess
from pathlib import Path

import pytest

from experiments.benchmarks import rows


def test_rows_are_appended_and_a_torn_line_is_dropped(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    assert rows.read_rows(file) == []
    rows.drop_torn_line(file)
    rows.append_row(file, {"a": 1})
    rows.append_row(file, {"b": 2})
    with open(file, "a") as torn:
        torn.write('{"c": 3')
    rows.drop_torn_line(file)
    rows.append_row(file, {"d": 4})
    assert rows.read_rows(file) == [{"a": 1}, {"b": 2}, {"d": 4}]


def test_a_time_is_the_median_in_milliseconds_with_its_spread():
    row = rows.row_time([0.001, 0.009, 0.002], "host", 7)
    assert row == {"median_ms": 2.0, "peak_bytes": 7, "n": 3, "clock": "host", "quartile_distance_ms": 4.0}
    assert rows.row_time([0.5], "host", 7)["quartile_distance_ms"] == 0


def test_rows_are_added_to_a_table_whose_columns_differ(tmp_path: Path):
    file = tmp_path / "rows.csv"
    rows.append_csv(file, [{"a": 1, "b": "x, y"}])
    rows.append_csv(file, [{"a": 2, "c": None}, {"a": 3, "c": 0.5}])
    assert file.read_text() == 'a,b,c\n1,"x, y",\n2,,\n3,,0.5\n'
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_an_error_is_shortened():
    error = rows.row_error(ValueError("x" * 1000))["error"]
    assert error.startswith("ValueError: xxx")
    assert len(error) < 320


def test_the_environment_names_processor_or_gpu_with_its_driver(monkeypatch: pytest.MonkeyPatch):
    cpu = rows.row_environment("jax", "cpu")
    assert cpu["device"].endswith(" cores")
    assert "driver" not in cpu["versions"]
    assert cpu["load_average"] >= 0
    assert rows.row_environment("jax", "NVIDIA H200")["versions"].endswith(", driver unknown")
    done = subprocess.CompletedProcess([], 0, stdout="570.1\n570.1\n")
    monkeypatch.setattr(rows.subprocess, "run", lambda *a, **options: done)
    gpu = rows.row_environment("jax", "NVIDIA H200")
    assert gpu["device"] == "NVIDIA H200"
    assert gpu["versions"].endswith(", driver 570.1")
