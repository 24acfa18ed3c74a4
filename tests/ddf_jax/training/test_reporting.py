import errno
import json
import resource
import time
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from ddf_jax.training.metrics import MetricsLog, draw_curves, read_metrics
from ddf_jax.training.reporting import Reporter, RunTimer
from ddf_jax.training.step import StepReport
from tests.ddf_jax.training.launch import TINY


def test_a_launch_drops_the_rows_after_the_step_it_resumes_from(tmp_path: Path):
    log = MetricsLog(tmp_path, 0)
    for step in range(1, 6):
        log.write(step, step / 2, train_loss=1.0 / step)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "ep')  # a kill cut the line short
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]

    log = MetricsLog(tmp_path, 3)
    log.write(4, 2.0, train_loss=0.5)
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1] == {"step": 4, "epoch": 2.0, "train_loss": 0.5}
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) >= 1


def test_a_row_that_cannot_be_written_costs_none_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    timer = RunTimer()
    reporter = Reporter(tmp_path, TINY, timer, 16, epoch_steps=22.5, total_steps=20, parameter_names=[])
    numbers: Any = (np.float32(2.0), np.float32(0.5), np.float32(0.1), np.zeros(0))
    report = StepReport(*numbers, invalid={})
    write, failures = MetricsLog.write, [OSError(errno.ENOSPC, "No space left on device")]

    def full(self: MetricsLog, step: int, epoch: float, **values: float | None) -> None:
        write(self, step, epoch, **values)  # the line is in the file's buffer, and written by the next flush
        if failures:
            raise failures.pop()

    monkeypatch.setattr(MetricsLog, "write", full)
    with timer.training(), pytest.raises(OSError, match="No space left"):
        reporter.steps([report, report])
    with timer.training():
        reporter.steps([report])
    reporter.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == [17, 18, 19]


def test_rows_that_cannot_be_written_are_an_error_once(tmp_path: Path):
    log, limits = MetricsLog(tmp_path, 0), resource.getrlimit(resource.RLIMIT_FSIZE)
    log.write(1, 0.1, train_loss=1.0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.write(2, 0.2, **{f"loss{number}": 1.0 for number in range(20)})
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]


def read_events(file: Path) -> list[Any]:
    """The events of a TFRecord file: length, its checksum, the event, its checksum."""
    data, events, messages = file.read_bytes(), [], typing.cast(Any, event_pb2)
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(messages.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_events_that_cannot_be_written_neither_stop_nor_delay_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    log = MetricsLog(tmp_path, 0)
    log.write(1, 0.1, train_loss=1.0, test_loss=None)
    log.sync()
    [events] = tmp_path.glob("events.out.tfevents.*")
    _, start, row = read_events(events)
    assert (start.step, start.session_log.status) == (1, 1)
    assert (row.step, [(value.tag, value.simple_value) for value in row.summary.value]) == (1, [("train_loss", 1.0)])

    def full(self: RecordWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordWriter, "flush", full)
    for step in range(2, 30):  # more than the queue of a `SummaryWriter` holds
        log.write(step, step / 10, train_loss=1.0)
        log.sync()
    log.close()
    assert caplog.messages == ["Cannot write TensorBoard's events: No space left on device."]
    assert len(read_metrics(tmp_path)) == 29


def test_lines_that_are_no_rows_are_named_and_cost_no_other_row(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    good = [b'{"step": %d, "epoch": 1.0}' % step for step in range(5)]
    lines = [good[0], b"null", good[1], b'{"step": 2, \xff', good[2], b"[1]", good[3], good[4]]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]
    assert caplog.messages == [f"Left out what is no row of metrics in {tmp_path / 'metrics.jsonl'}: line 2, 4, 6."]


def test_a_number_that_is_missing_is_null_and_is_not_drawn(tmp_path: Path):
    log = MetricsLog(tmp_path, 0)
    log.write(1, 0.5, test_loss=None, test_accuracy=0.25)
    log.close()
    rows = read_metrics(tmp_path)
    assert rows == [{"step": 1, "epoch": 0.5, "test_loss": None, "test_accuracy": 0.25}]
    draw_curves(rows, tmp_path / "curves.png", title="run", metric="accuracy")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_launches_add_up_and_only_training_counts_as_training(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    timer = RunTimer()
    now = 103.0
    with timer.training():
        now = 108.0
        assert timer.training_seconds == 5.0
    now = 110.0
    seconds, training_seconds = timer.seconds, timer.training_seconds
    assert (seconds, training_seconds) == (10.0, 5.0)

    now = 500.0
    later = RunTimer()
    later.add_earlier(seconds, training_seconds)
    with later.training():
        now = 502.0
    assert (later.seconds, later.training_seconds) == (12.0, 7.0)
