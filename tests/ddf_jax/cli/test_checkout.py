"""`ddf bench` and `ddf report`, the commands of a checkout."""

import json
from pathlib import Path

import pytest

from ddf_jax.cli import checkout


@pytest.mark.parametrize("command", ["bench", "report"])
def test_outside_a_checkout_one_line_states_what_they_need(refused, command, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(checkout, "FOLDER", tmp_path)
    error = refused(command)
    assert f"`ddf {command}` needs a checkout of ddf-jax" in error
    assert "pip install --editable '.[train]'" in error


def test_an_unknown_peer_is_refused_before_anything_is_measured(refused, tmp_path: Path):
    error = refused("bench", "scaling", "--against", "numpy", "--out", tmp_path / "out")
    assert "`ddf bench scaling` compares with nothing else, got --against numpy" in error
    assert not (tmp_path / "out").exists()


def test_bench_prints_its_rows_as_one_document(ddf, tmp_path: Path, monkeypatch):
    from experiments.benchmarks import bench

    fake = bench.Benchmark((), lambda settings: [{"median_ms": float(settings.turns(5))}], lambda rows: "a table")
    monkeypatch.setitem(bench.BENCHMARKS, "input", fake)
    status, out, err = ddf("bench", "input", "--rounds", "3", "--out", tmp_path, "--json")
    assert status == 0, err
    assert json.loads(out) == [{"benchmark": "input", "median_ms": 3.0}]
    assert "a table" in err
    assert (tmp_path / "input_cpu.csv").read_text() == "median_ms\n3.0\n"


def test_report_checks_numbers_and_exits_with_1_where_one_is_wrong(ddf, monkeypatch):
    from experiments.reports import report
    from experiments.reports.numbers import Wrong

    status, out, _ = ddf("report", "--check")
    assert (status, out) == (0, "Every measured number has its row.\n")
    monkeypatch.setattr(report, "check_pages", lambda **options: [Wrong("README.md", 3, "'2 ms' names no row")])
    assert ddf("report", "--check") == (1, "README.md:3: '2 ms' names no row\n", "")
    document = json.loads(ddf("report", "--check", "--json").out)
    assert document == {"written": [], "wrong": [{"page": "README.md", "line": 3, "message": "'2 ms' names no row"}]}
