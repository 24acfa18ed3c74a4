"""The parts of the GPU suite, as a dry run in this process: every case has a row, whatever fails."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import gpu_cases, gpu_parts
from experiments.benchmarks.gpu_cases import Case, Options
from experiments.benchmarks.gpu_parts import Part, identity, run
from experiments.benchmarks.rows import Row
from experiments.benchmarks.training_step import TrainingStep

DRY = Options(quick=True, dry_run=True)
KEY = {"implementation": "a", "shape": "s", "dtype": "float32", "pass": "forward"}


def rows_of(part: str, options: Options, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[Row]:
    """The rows that a part prints when `gpu_suite` runs it, all cases of which it must have tried."""
    encoded = json.dumps(options.__dict__)
    assert gpu_parts.main([part, str(folder / "rows.jsonl"), "0", encoded]) == 0
    lines = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert lines.pop() == {"finished": part}
    announced, rows = lines[::2], lines[1::2]
    for start, row in zip(announced, rows, strict=True):
        assert start["started"].items() <= row.items()
        assert row["part"] == part
        assert {"device", "versions", "date"} <= row.keys()
    assert len({identity(row) for row in rows}) == len(rows)
    return rows


@pytest.mark.slow  # test_checks.py runs the same
def test_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = rows_of("checks", DRY, tmp_path, capsys)
    assert [row["dtype"] for row in rows] == ["float32", "bfloat16", "float32"]
    assert all(row["passed"] for row in rows)
    assert [row["shape"] for row in rows] == ["tiny", "tiny", "attention_shift_1x2x3x4"]


def test_timings(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    copy, *rows, fused, composed = rows_of("timings", DRY, tmp_path, capsys)
    assert composed["implementation"] == f"{fused['implementation']}_composed"
    assert min(fused["median_ms"], composed["median_ms"]) > 0
    assert copy["bytes_per_second"] == pytest.approx(2 * 4 * 2**10 / (1e-3 * copy["median_ms"]))
    assert [(row["implementation"], row["pass"]) for row in rows] == [
        (name, which)
        for name in ("triton_interpreted", "xla_depthwise", "xla_unfold")
        for which in ("forward", "forward_backward")
    ]
    elements = {"forward": 2 * 48 + 12 + 4, "forward_backward": 2 * 48 + 12 + 4 + 3 * 48 + 2 * (12 + 4)}
    for row in rows:
        assert row["median_ms"] > 0
        assert row["minimum_bytes"] == 2 * elements[row["pass"]]


def test_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = rows_of("steps", dataclasses.replace(DRY, folder=str(tmp_path)), tmp_path, capsys)
    assert [row["implementation"] for row in rows] == 2 * ["ddf_resnet50", "resnet50"]
    for row in rows[2:]:
        kernels = json.loads((tmp_path / f"{row['implementation']}.kernels.json").read_text())
        assert sum(kernel["us"] for kernel in kernels) == pytest.approx(1e3 * row["kernels"]["total"]["ms"], rel=1e-3)
        assert row["kernels"]["convolution"]["ms"] > 0
        assert row["span_ms"] > 0
    for row in rows[:2]:
        assert row["last_loss"] < row["first_loss"] < 5
        assert row["images_per_second"] == pytest.approx(2e3 / row["median_ms"])


def test_a_step_whose_loss_is_not_finite_is_an_error():
    options = {"width": 4, "blocks": (1,), "num_classes": 10}
    step = TrainingStep("resnet18", batch=1, image_size=8, dtype="float32", options=options)

    def diverged(state: Any, images: Any, labels: Any) -> Any:
        return state, jnp.inf

    program: Any = diverged
    with pytest.raises(ArithmeticError, match="expected a finite loss of the first step, got inf"):
        step.measure(program, rounds=0, steps=0)


def test_tune(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = rows_of("tune", DRY, tmp_path, capsys)
    assert [row["kernel"] for row in rows] == ["forward", "input", "spatial", "channel"]
    for row in rows:
        assert row["measured"] == 1
        assert row["candidates"] > 1
        assert row["median_ms"] == row["heuristic_ms"]


def test_a_search_has_the_times_of_all_candidates_and_an_error_where_it_ran_out_of_time(
    monkeypatch: pytest.MonkeyPatch,
):
    def measure_of(*a: Any, out_of_time: Any, **options: Any) -> Any:
        return lambda candidates: [TimeoutError() if out_of_time() else 0.001 for _ in candidates]

    monkeypatch.setattr(gpu_cases, "measure_of", measure_of)
    options = Options(quick=True, shapes=("resnet50_28x28x128",))
    rows = {case.key["kernel"]: case.measure(None) for case in gpu_cases.tune(options)}
    assert [*rows] == ["forward", "input", "filters"]
    for row in rows.values():
        assert row["measured"] == row["candidates"] == len(row["candidates_ms"])
        assert "error" not in row
    assert rows["forward"]["candidates_ms"]["2x2, 1 warps"] == rows["forward"]["heuristic_ms"] == 1.0
    assert rows["filters"]["separate_ms"] == 2.0  # dspatial and dchannel
    assert "separate_ms" not in rows["input"]

    times = iter(22 * [False])
    monkeypatch.setattr(Options, "out_of_time", lambda self: next(times, True))
    [forward, *_] = gpu_cases.tune(options)
    row = forward.measure(None)
    assert 0 < row["measured"] < row["candidates"]
    assert row["error"].startswith("TimeoutError")


def test_torch_is_left_out_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_cases.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(gpu_parts, "working_device", lambda framework: pytest.fail("nothing is to be measured"))
    assert list(run(gpu_parts.BY_NAME["torch"], DRY, [], 0)) == [{"finished": "torch"}]


def part_of(*cases: Case) -> Part:
    return Part("toy", 1.0, lambda options: iter(cases))


def case_of(name: str, error: Exception | None = None, lower: Any = None) -> Case:
    def measure(compiled: Any) -> Row:
        if error is not None:
            raise error
        return {"median_ms": 1.0, "compiled": compiled is not None}

    return Case(KEY | {"implementation": name}, measure, lower)


def test_a_case_that_fails_has_an_error_and_the_others_run():
    def refused() -> Any:
        raise NotImplementedError("not here")

    works = case_of("works", lower=lambda: jax.jit(lambda: 1).lower())
    part = part_of(case_of("fails", ArithmeticError("wrong")), case_of("refused", lower=refused), works)
    rows = {row["implementation"]: row for row in run(part, DRY, [], 0) if "part" in row}
    assert rows["fails"]["error"] == "ArithmeticError: wrong"
    assert rows["refused"]["error"] == "NotImplementedError: not here"
    assert rows["works"]["compiled"] is True


def test_an_error_that_costs_the_device_ends_the_process(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def lost(framework: str) -> str:
        calls.append(framework)
        if len(calls) > 1:
            raise RuntimeError("illegal address")
        return "cpu"

    monkeypatch.setattr(gpu_parts, "working_device", lost)
    rows = run(part_of(case_of("fails", ArithmeticError("wrong")), case_of("next")), DRY, [], 0)
    assert [next(rows) for _ in range(2)][1]["error"] == "ArithmeticError: wrong"
    with pytest.raises(RuntimeError, match="illegal address"):
        next(rows)


def test_cases_with_a_row_are_skipped_and_failed_ones_of_an_earlier_call_are_not():
    part = part_of(case_of("done"), case_of("failed_before"), case_of("failed_now"), case_of("elsewhere"))
    device = gpu_parts.row_environment("jax", "cpu")["device"]
    keys = {name: {"part": "toy", **KEY, "implementation": name, "device": device} for name in ("done", "failed_now")}
    rows = [
        keys["done"],
        keys["done"] | {"implementation": "failed_before", "error": "an error"},
        keys["done"] | {"implementation": "elsewhere", "device": "another GPU"},
        {name: value for name, value in keys["failed_now"].items() if name != "device"} | {"error": "a crash"},
    ]
    tried = [row["implementation"] for row in run(part, DRY, rows, 3) if "part" in row]
    assert tried == ["failed_before", "elsewhere"]


def test_a_part_that_is_out_of_time_exits_with_that_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(gpu_parts.BY_NAME, "toy", part_of(case_of("late")))
    encoded = json.dumps(DRY.__dict__ | {"deadline": time.time() - 1})
    assert gpu_parts.main(["toy", str(tmp_path / "rows.jsonl"), "0", encoded]) == gpu_parts.OUT_OF_TIME


def test_the_default_cases_are_the_most_important_ones_first():
    quick, full = Options(quick=True), Options()
    assert [arg.name for arg in quick.args()][:2] == ["resnet50_56x56x64", "fpn_p2"]
    assert len(quick.args()) == 6
    assert full.args()[: len(quick.args())] == quick.args()
    assert quick.chosen_implementations() == ("triton",)
    assert full.chosen_implementations() == ("triton", "xla")
    assert [case.key["implementation"] for case in gpu_cases.timings(quick)][:5] == [
        "copy",
        "triton",
        "triton",
        "xla_depthwise",
        "xla_depthwise",
    ]
    assert {case.key["dtype"] for case in gpu_cases.checks(full)} == {"float32", "bfloat16", "float16"}


def test_the_reference_finds_a_cpu_next_to_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    updates = {}
    monkeypatch.setattr(gpu_parts.jax.config, "update", updates.__setitem__)
    monkeypatch.setattr(type(jax.config), "jax_platforms", "cuda", raising=False)
    monkeypatch.setitem(gpu_parts.BY_NAME, "toy", part_of())
    assert gpu_parts.main(["toy", str(tmp_path / "rows.jsonl"), "0", json.dumps(DRY.__dict__)]) == 0
    assert updates == {"jax_platforms": "cuda,cpu"}
