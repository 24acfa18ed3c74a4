"""Metrics in Weights & Biases and MLflow, by their own libraries, without a network."""

import json
from pathlib import Path
from typing import Any

import pytest

from ddf_jax.errors import how_to_install
from ddf_jax.training import trackers
from ddf_jax.training.metrics import MetricsLog
from ddf_jax.training.trackers import check_trackers, open_tracker


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the store in which the runs of a test are."""
    from mlflow import MlflowClient  # which takes seconds

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlruns'}")
    return MlflowClient()


def log_rows(workdir: Path, step: int, rows: list[tuple[int, float]]) -> None:
    """One launch of a run that writes some losses."""
    workdir.mkdir(exist_ok=True)
    config: Any = {"seed": 3, "data": {"dataset": "digits"}}
    log = MetricsLog(workdir, step, {"to mlflow": lambda: open_tracker("mlflow", workdir, "a run", config)})
    for number, loss in rows:
        log.write(number, number / 10, train_loss=loss, test_loss=None)
    log.close()


def test_a_resumed_run_goes_on_in_the_same_run_of_mlflow(tmp_path: Path, mlflow: Any):
    workdir = tmp_path / "run"
    log_rows(workdir, 0, [(1, 0.5), (2, 0.25)])
    name = json.loads((workdir / "trackers.json").read_text())["mlflow"]
    log_rows(workdir, 2, [(3, 0.125)])
    run = mlflow.get_run(name)
    assert run.info.status == "FINISHED"
    assert (run.info.run_name, run.data.params) == ("a run", {"seed": "3", "data.dataset": "digits"})
    history = mlflow.get_metric_history(name, "train_loss")
    assert [(row.step, row.value) for row in history] == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert json.loads((workdir / "trackers.json").read_text()) == {"mlflow": name}


def test_a_server_that_fails_costs_a_warning_and_no_rows(
    tmp_path: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*_: Any, params: Any = None) -> None:
        if params is None:  # those of the recipe go before
            raise ConnectionError("no route to host")

    monkeypatch.setattr(type(mlflow), "log_batch", refuse)
    log_rows(tmp_path / "run", 0, [(1, 0.5)])
    assert caplog.messages == ["Cannot write to mlflow: no route to host."]
    monkeypatch.setattr(type(mlflow), "__init__", refuse)
    log_rows(tmp_path / "run", 1, [(2, 0.25)])
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    assert caplog.messages[1:] == ["Cannot write to mlflow: no route to host."]


def test_a_server_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import threading

    never = threading.Event()
    monkeypatch.setattr(type(mlflow), "log_batch", lambda *_, params=None: params or never.wait())
    monkeypatch.setattr(trackers, "_CLOSE_SECONDS", 0.1)
    log_rows(tmp_path / "run", 0, [(1, 0.5)])
    never.set()
    assert caplog.messages == ["Cannot write to mlflow: the server has not taken all rows within 0 s."]


@pytest.mark.slow
def test_a_run_is_written_offline_for_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for step in (1, 2):
        tracker = open_tracker("wandb", tmp_path, "a run", {"seed": 3})
        tracker.write(step, {"train_loss": 0.5, "test_loss": None})
        tracker.close()
    name = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{name}.wandb"] * 2
    assert all(b"train_loss" in file.read_bytes() for file in files)


def test_a_missing_package_is_named_before_a_training(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        check_trackers(("wandb",))
    assert how_to_install(caught.value) == "wandb is not installed. Install it with: pip install 'ddf-jax[wandb]'"
