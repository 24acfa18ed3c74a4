"""The benchmark of whole networks runs, and its rows say what was run."""

import csv
from pathlib import Path

import pytest

from experiments.benchmarks import training_cpu


@pytest.mark.slow
def test_each_framework_has_a_row_for_each_pass(tmp_path: Path):
    out = tmp_path / "rows.csv"
    assert not training_cpu.main(
        ["--models", "resnet18", "--batch", "2", "--image-size", "32", "--rounds", "2", "--out", str(out)]
    )
    rows = list(csv.DictReader(out.read_text().splitlines()))
    keys = [(row["implementation"], row["pass"]) for row in rows]
    assert keys == [(name, which) for name in ("jax", "torch") for which in ("forward", "training_step")]
    assert {row["shape"] for row in rows} == {"2x32x32x3"}
    assert all(float(row["median_ms"]) > 0 and int(row["peak_bytes"]) > 4 * 11e6 for row in rows)  # its parameters
