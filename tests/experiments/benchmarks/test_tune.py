"""Autotuning times one kernel, keeps a config only if its values are right, and writes what it finds."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks import tune
from pallas_kernels.ops import autotune
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.config import ArgShape
from pallas_kernels.ops.device import DeviceInfo
from pallas_kernels.ops.heuristics import heuristic_config
from pallas_kernels.ops.spec import FilterSpec

ARG = ArgSpec("small", (1, 3, 4, 4), FilterSpec((1, 3)))
SHAPE = ArgShape.of(*ARG.structs(), ARG.spec)


def test_it_is_refused_on_a_cpu():
    with pytest.raises(SystemExit, match="Kernels are tuned on an NVIDIA GPU from Ampere on, here is: cpu"):
        tune.main([])


def test_an_unknown_call_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        tune.main(["no_such"])
    assert "no calls named ['no_such']; there are: resnet50_56x56x64" in capsys.readouterr().err


def test_on_a_gpu_every_kernel_is_tuned_and_the_best_configs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(autotune.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(tune, "current_device", lambda: DeviceInfo("gpu", "NVIDIA H200"))
    slow = heuristic_config(SHAPE, "fwd")

    def measure_of(arg: ArgSpec, dtype: str) -> Any:
        def seconds(kernel: str, config: Any) -> float | Exception:
            if kernel == "dspatial":
                return ArithmeticError("wrong")
            return 2e-6 if config == slow else 1e-6

        return lambda candidates: [seconds(*candidate) for candidate in candidates]

    monkeypatch.setattr(tune, "measure_of", measure_of)
    monkeypatch.setattr(tune, "ARG_SPECS", {"small": ARG})
    assert tune.main(["small", "--dtypes", "float32"]) == 0
    forward, _, spatial, _ = capsys.readouterr().out.splitlines()
    assert forward.startswith("small float32 fwd: 1.0 µs, the heuristic's config 2.0, 0 of ")
    assert spatial.startswith("small float32 dspatial: All ")
    assert {kernel for _, kernel in autotune.read_tuned_configs(tmp_path, "NVIDIA H200")} == {"fwd", "dx", "dchannel"}


def test_configs_that_the_gpu_suite_measured_elsewhere_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(autotune.CACHE_VARIABLE, str(tmp_path))
    config = heuristic_config(SHAPE, "fwd")
    tuned = {"kernel": "fwd", "shape": dataclasses.asdict(SHAPE), "config": dataclasses.asdict(config)}
    file = tmp_path / "rows.jsonl"
    file.write_text(
        json.dumps({"part": "checks"}) + "\n" + json.dumps({"tuned": tuned, "device": "NVIDIA H200"}) + "\n"
    )
    assert tune.main(["--rows", str(file)]) == 0
    assert autotune.read_tuned_configs(tmp_path, "NVIDIA H200") == {(SHAPE, "fwd"): config}
    assert capsys.readouterr().out.startswith("1 configs for NVIDIA H200: ")
    file.write_text("")
    assert tune.main(["--rows", str(file)]) == 1
