"""Services that keep a run's metrics in addition to its folder: Weights & Biases, MLflow.

Each is set up by its own environment variables and log-in. A run keeps the names that they gave it in `trackers.json`,
so that a launch that resumes it continues there.
"""

import importlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Protocol

from ddf_jax.files import write_json
from ddf_jax.training.metrics import Values, Writer

TrackerName = Literal["wandb", "mlflow"]

IDS_FILE = "trackers.json"
PROJECT = "ddf_jax"  # where the environment names no other


_LONGEST, _AT_ONCE = 500, 100  # characters of a parameter, and parameters of a request, that every server takes
_CLOSE_SECONDS = 60.0  # that the end of a run waits for a slow service


class Tracker(Writer, Protocol):
    """One run of one service."""

    id: str
    """Its name there."""


class WandbTracker:
    """A run of Weights & Biases, in the project `WANDB_PROJECT`; offline with `WANDB_MODE=offline`.

    Rows of a step that it has already, as after a run has gone back, it ignores.
    """

    def __init__(self, folder: Path, name: str, config: dict[str, Any], id: str | None):
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            config=config,
            id=id,
            resume="allow",
            dir=folder,
        )
        self.id = self._run.id

    def write(self, step: int, values: Values) -> None:
        self._run.log({name: value for name, value in values.items() if value is not None}, step=step)

    def flush(self) -> None:
        """Its own process sends."""

    def close(self) -> None:
        self._run.finish()


class MlflowTracker:
    """A run of MLflow, at `MLFLOW_TRACKING_URI` in the experiment `MLFLOW_EXPERIMENT_NAME`.

    A thread sends, so that a slow server does not hold up the training.
    """

    def __init__(self, folder: Path, name: str, config: dict[str, Any], id: str | None):
        from mlflow import MlflowClient
        from mlflow.entities import Param

        del folder
        self._client = MlflowClient()
        if id is None:
            title = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            experiment = self._client.get_experiment_by_name(title)
            number = experiment.experiment_id if experiment else self._client.create_experiment(title)
            id = self._client.create_run(number, run_name=name).info.run_id
            params = [Param(key, str(value)[:_LONGEST]) for key, value in _flat(config).items()]
            for first in range(0, len(params), _AT_ONCE):
                self._client.log_batch(id, params=params[first : first + _AT_ONCE])
        else:
            self._client.update_run(id, status="RUNNING")
        self.id = id
        self._rows: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def write(self, step: int, values: Values) -> None:
        from mlflow.entities import Metric

        if self._error is not None:
            raise self._error
        now = int(1000 * time.time())
        self._rows.put([Metric(name, value, now, step) for name, value in values.items() if value is not None])

    def flush(self) -> None:
        """The thread sends."""

    def close(self) -> None:
        self._rows.put(None)
        self._thread.join(_CLOSE_SECONDS)
        if self._error is not None:
            raise self._error
        if self._thread.is_alive():
            raise TimeoutError(f"the server has not taken all rows within {_CLOSE_SECONDS:.0f} s")
        self._client.set_terminated(self.id)

    def _send(self) -> None:
        while (metrics := self._rows.get()) is not None:
            try:
                self._client.log_batch(self.id, metrics)
            except Exception as error:  # of the network
                self._error = error
                return


TRACKERS: dict[TrackerName, Callable[[Path, str, dict[str, Any], str | None], Tracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


def check_trackers(names: Iterable[TrackerName]) -> None:
    """Raises `ModuleNotFoundError` where the package of a tracker is not installed: before a training."""
    for name in names:
        importlib.import_module(name)


def open_tracker(name: TrackerName, folder: Path, run_name: str, config: dict[str, Any]) -> Tracker:
    """The run's tracker of that name: of an earlier launch, or a new one.

    Args:
        name: of the service.
        folder: the run's.
        run_name: what people call the run.
        config: its recipe, as JSON has it.

    Raises:
        Exception: of the service's library.
    """
    file = folder / IDS_FILE
    ids = json.loads(file.read_text()) if file.exists() else {}
    tracker = TRACKERS[name](folder, run_name, config, ids.get(name))
    if ids.get(name) != tracker.id:
        write_json(file, ids | {name: tracker.id})
    return tracker


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}" if prefix else key).items()}
