"""Tables of what the GPU suite measured."""

from pathlib import Path

import pytest

from experiments.benchmarks.rows import Row, append_row, read_rows
from experiments.reports import gpu
from experiments.reports.results import RESULTS

CALL: Row = {"shape": "a", "dtype": "bfloat16", "device": "NVIDIA H200", "versions": "jax 0.11.2", "date": "2026-11-28"}
TIMED = CALL | {"part": "timings", "pass": "forward", "minimum_bytes": 4e8}
SUMS = {"launches": 3.0, "ms": 2.0, "bound_ms": 1.5}
ROWS: list[Row] = [
    CALL | {"part": "checks", "worst_share_of_tolerance": 0.5, "passed": True},
    CALL | {"part": "checks", "worst_share_of_tolerance": 1.5, "passed": False},
    TIMED | {"implementation": "triton", "median_ms": 0.1},
    TIMED | {"implementation": "torch_depthwise", "median_ms": 0.3, "part": "torch"},
    TIMED | {"implementation": "xla_unfold", "error": "RuntimeError"},
    CALL
    | {"part": "steps", "implementation": "net", "pass": "kernels", "kernels": {"batch_norm": SUMS, "total": SUMS}}
    | {"span_ms": 2.5, "idle_share": 0.2},
    CALL
    | {"part": "tune", "median_ms": 0.1, "heuristic_ms": 0.2, "separate_ms": None}
    | {"tuned": {"kernel": "dfilters", "config": {"tile_h": 7, "tile_w": 1, "num_warps": 2}}},
]


def test_each_part_that_has_rows_has_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for row in ROWS:
        append_row(tmp_path / "rows.jsonl", row)
    assert gpu.main([str(tmp_path)]) == 0
    text = (tmp_path / "gpu.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# The GPU suite on NVIDIA H200",
        "## Checks against float64",
        "## Operator: forward",
        "## Kernels of a training step",
        "## Kernel configs",
    ]
    for line in (
        "| bfloat16 | 2 | 1 | 1.50 |",
        "| a, bfloat16 | 100.0 |  |  | 300.0 | 3.0× |",  # no copy was timed
        "| batch norm | 3 | 2.00 | 1.50 |",
        "| a, bfloat16, dfilters | 200.0 | 100.0 | 7×1, 2 |  |",
    ):
        assert line in text.splitlines()
    assert "No kernel runs in 20.0 % of 2.5 ms (net)." in text


def test_predicted_times_stand_beside_the_measured_ones(monkeypatch: pytest.MonkeyPatch):
    predicted = {"device": "NVIDIA H200", "call": "a", "spec": "a bfloat16"}
    times = {"triton": {"forward": 40.0, "input": 50.0}, "mosaic_gpu": {"forward": 30.0}}
    stored = [
        predicted | {"implementation": name, "kernel": kernel, "predicted_us": microseconds}
        for name, kernels in times.items()
        for kernel, microseconds in kernels.items()
    ]
    monkeypatch.setattr(gpu.kernels, "stored_rows", lambda: stored)
    rows = [TIMED | {"implementation": name, "median_ms": 0.1} for name in times]
    rows += [row | {"pass": "forward_backward"} for row in rows]
    forward, both = (gpu.operator_table(rows, which).splitlines() for which in gpu.PASSES)
    assert forward[0] == "| call | µs | predicted | share of the copy bandwidth | Mosaic GPU | predicted | speed-up |"
    assert forward[-1] == "| a, bfloat16 | 100.0 | 40.0 |  | 100.0 | 30.0 | 1.0× |"
    assert both[-1] == "| a, bfloat16 | 100.0 | 90.0 |  | 100.0 |  | 1.0× |"  # Mosaic has not all kernels


def test_without_rows_it_states_what_measures_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        gpu.main([str(tmp_path)])
    assert "`python -m experiments.gpu_suite --out" in capsys.readouterr().err


def test_the_committed_tables_are_those_of_the_committed_rows():
    rows = read_rows(RESULTS / "gpu" / "rows.jsonl")
    assert gpu.report(rows) == (RESULTS / "gpu" / "gpu.md").read_text()
