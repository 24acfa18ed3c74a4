"""The benchmark's rows, table and files."""

import csv
import importlib.util
import json

import pytest

from experiments.benchmarks import operator
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec

SMALL = (ArgSpec("1x4x5x2", (1, 4, 5, 2), FilterSpec(1)), ArgSpec("2x3x3x4", (2, 3, 3, 4), FilterSpec(1)))
CONTRACT = ["implementation", "shape", "dtype", "kernel_size", "pass", "median_ms", "peak_bytes"]


def row(implementation, shape, which, median_ms):
    values = (implementation, shape, "float32", 3, which, median_ms, 2**20)
    return dict(zip(CONTRACT, values, strict=True))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(operator, "BENCHMARK", SMALL)


def test_every_implementation_has_a_row_for_each_shape_and_pass(small, tmp_path, capsys):
    json_file, csv_file = tmp_path / "rows.json", tmp_path / "rows.csv"
    assert operator.main(["--json", "--rounds", "2", "--out", str(json_file), str(csv_file)]) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)
    keys = [(row["implementation"], row["shape"], row["pass"]) for row in rows]
    names = {name for name, _, _ in keys}
    assert {"xla", "reference", "xla_autodiff"} <= names
    assert len(keys) == len(set(keys)) == len(names) * len(SMALL) * 2
    for row in rows:
        assert list(row)[:7] == CONTRACT
        assert row["median_ms"] > 0
        assert {"n", "device", "versions", "date"} <= row.keys()
    assert json.loads(json_file.read_text()) == rows
    table = csv.DictReader(csv_file.read_text().splitlines())
    assert [row["peak_bytes"] for row in table] == [str(row["peak_bytes"]) for row in rows]
    assert {file.name for file in tmp_path.iterdir()} == {"rows.json", "rows.csv"}
    has_torch = importlib.util.find_spec("torch") is not None
    assert ("torch_unfold" in names) == has_torch
    assert ("PyTorch is not installed" in printed.err) != has_torch


def test_the_table_tells_how_many_times_faster_than_pytorch():
    rows = [
        row(name, shape, which, milliseconds)
        for which in operator.PASSES
        for name, times in {"xla": (1.0, 2.0), "torch_unfold": (8.0, 4.0)}.items()
        for shape, milliseconds in zip(("a", "b"), times, strict=True)
    ]
    assert operator.speedups(rows, "torch_unfold", "xla", "forward") == {"a": 8.0, "b": 2.0}
    lines = [line.split() for line in operator.to_table(rows).splitlines()]
    assert lines[1] == ["a", "1.00", "(8.0×)", "1", "8.00", "(1.0×)", "1"]
    assert lines[3] == ["geometric", "mean", "4.0×", "1.0×"]
    assert len(lines) == 8


def test_without_pytorch_the_table_compares_with_automatic_differentiation():
    rows = [row(name, "a", which, 1.0) for which in operator.PASSES for name in ("xla", "xla_autodiff")]
    assert "times faster than xla_autodiff" in operator.to_table(rows)


@pytest.mark.parametrize("name", ["rows.txt", "missing/rows.json"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(name, tmp_path, capsys):
    with pytest.raises(SystemExit):
        operator.main(["--out", str(tmp_path / name)])
    assert "--out: must be a .json or .csv file in a folder that exists" in capsys.readouterr().err
