"""A run's numbers on disk: `metrics.jsonl`, TensorBoard's events, and the curves drawn from them."""

import contextlib
import io
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from ddf_jax.errors import one_line
from ddf_jax.files import unused, write_atomically

_log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"

_FLUSH_SECONDS = 10
_NONE: Mapping[str, Any] = MappingProxyType({})

Values = Mapping[str, float | None]
"""Numbers of a step by name; None is one that is not finite."""


class Writer(Protocol):
    """Keeps rows of metrics somewhere. One that fails is not asked again."""

    def write(self, step: int, values: Values) -> None:
        """Adds a row."""
        ...

    def flush(self) -> None:
        """Writes out what is in memory."""
        ...

    def close(self) -> None:
        """Writes out what is in memory, and ends."""
        ...


class MetricsLog:
    """Appends rows to `metrics.jsonl` and TensorBoard's events in a run's folder.

    Rows of steps after `step`, where this launch resumes, are dropped first: each step has one row, of what lasted.

    Args:
        workdir: the run's folder.
        step: where this launch resumes.
        writers: functions that make further writers, by what they write.
    """

    def __init__(self, workdir: Path, step: int, writers: Mapping[str, Callable[[], Writer]] = _NONE) -> None:
        path = workdir / METRICS_FILE
        kept = [row for row in read_metrics(workdir) if row["step"] <= step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", buffering=1)
        self._writers: dict[str, Writer] = {}
        for name, make in {"TensorBoard's events": lambda: EventFile(workdir, step), **writers}.items():
            with ornament(f"Cannot write {name}"):
                self._writers[name] = make()

    def write(self, step: int, epoch: float, **values: float | None) -> None:
        """Adds one row. None is a number that is not finite."""
        self._file.write(json.dumps({"step": step, "epoch": epoch, **values}, allow_nan=False) + "\n")
        self._with_writers(lambda writer: writer.write(step, values))

    def sync(self) -> None:
        """Makes the rows so far durable."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._with_writers(lambda writer: writer.flush())

    def close(self) -> None:
        """Writes out what is still in memory."""
        self._with_writers(lambda writer: writer.close())
        with contextlib.suppress(OSError):  # rows behind the last `sync` are of steps that no checkpoint has
            self._file.close()

    def _with_writers(self, act: Callable[[Writer], None]) -> None:
        for name in list(self._writers):
            writer = self._writers.pop(name)  # which stays so where it fails
            with ornament(f"Cannot write {name}"):
                act(writer)
                self._writers[name] = writer


class EventFile:
    """TensorBoard's events of one launch.

    Not by tensorboardX's `SummaryWriter`: an error ends its thread, its queue fills, and training waits for ever.

    Args:
        folder: the run's.
        step: where the launch resumes. What earlier launches wrote of later steps is void.

    Raises:
        OSError: the file cannot be written, by any method; it is closed then.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.record_writer import RecordWriter

        self._writer = RecordWriter(str(folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"))
        self._flush_after = time.monotonic()
        self._add(file_version="brain.Event:2")
        self._add(step=step + 1, session_log={"status": "START"})

    def write(self, step: int, values: Values) -> None:
        """Adds numbers, in the file after at most 10 seconds and a call. None is left out."""
        scalars = [{"tag": name, "simple_value": value} for name, value in values.items() if value is not None]
        self._add(step=step, summary={"value": scalars})
        if time.monotonic() > self._flush_after:
            self.flush()

    def flush(self) -> None:
        """Writes out what is in memory."""
        self._flush_after = time.monotonic() + _FLUSH_SECONDS
        with self._closed_on_error():
            self._writer.flush()

    def close(self) -> None:
        """Writes out what is in memory, and closes the file."""
        self._writer.close()

    def _add(self, **fields: Any) -> None:
        from tensorboardX.proto import event_pb2

        messages: Any = event_pb2  # whose attributes are made when it is imported
        with self._closed_on_error():
            self._writer.write(messages.Event(wall_time=time.time(), **fields).SerializeToString())

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                self._writer.close()
            raise


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl`. A line that is no row is left out, with a warning unless it is the last."""
    path = workdir / METRICS_FILE
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows, unreadable = [], []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        else:
            unreadable.append(number)
    if inner := [number for number in unreadable if number < len(lines)]:
        _log.warning("Left out what is no row of metrics in %s: line %s.", path, ", ".join(map(str, inner)))
    return rows


def keep_metrics(workdir: Path) -> None:
    """Copies the metrics of a run that goes back, whose last rows it drops, to `metrics.jsonl.undone`."""
    path = workdir / METRICS_FILE
    if path.exists():
        write_atomically(unused(workdir / f"{METRICS_FILE}.undone"), path.read_bytes())


def draw_curves(rows: Sequence[dict[str, Any]], path: Path, *, title: str, metric: str) -> None:
    """Draws the rows of `metrics.jsonl`: loss, `train_<metric>` and `test_<metric>`, and learning rate, as PNG.

    Needs no display and leaves matplotlib's global state alone.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = {
        "loss": ("train_loss", "test_loss"),
        metric: (f"train_{metric}", f"test_{metric}"),
        "learning rate": ("learning_rate",),
    }
    for axes, (label, names) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name in names:
            points = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
            style = {"marker": "o", "markersize": 3} if name.startswith("test_") else {"linewidth": 0.8}
            axes.plot(*zip(*points, strict=True) if points else ([], []), label=name.replace("_", " "), **style)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomically(path, image.getvalue())


@contextlib.contextmanager
def ornament(failure: str) -> Iterator[None]:
    """Around what a run can do without: an error in it is a warning that begins with `failure`."""
    try:
        yield
    except Exception as error:  # of libraries that draw and write
        _log.warning("%s: %s.", failure, one_line(error))
