"""A run's progress: `metrics.jsonl`, TensorBoard events, curves, a bar and lines; and the check for finite numbers.

What writes needs the `train` extra, and is imported when it is used.
"""

import contextlib
import io
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.errors import NonFiniteError, one_line
from ddf_jax.files import write_atomically
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.step import StepReport, Variables, leaf_names
from ddf_jax.training.tasks import Scores

_log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"

_ADVICE = "lower `optimizer.learning_rate`, lengthen `optimizer.warmup_epochs`, or compute in float32 (`dtype`)"


class RunTimer:
    """Wall-clock seconds of this launch, added to those that a checkpoint remembers of earlier launches: what a killed
    launch did after its last checkpoint is done again, and only the second time counts."""

    def __init__(self) -> None:
        self._seconds = self._training_seconds = 0.0
        self._start = time.perf_counter()
        self._training_start: float | None = None

    def add_earlier(self, seconds: float, training_seconds: float) -> None:
        """Adds the seconds of earlier launches."""
        self._seconds += seconds
        self._training_seconds += training_seconds

    @property
    def seconds(self) -> float:
        """All time so far: compiling, training, evaluating, saving."""
        return self._seconds + time.perf_counter() - self._start

    @property
    def training_seconds(self) -> float:
        """Of these, the time spent in training steps."""
        running = 0.0 if self._training_start is None else time.perf_counter() - self._training_start
        return self._training_seconds + running

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Counts the time inside as training."""
        self._training_start = time.perf_counter()
        try:
            yield
        finally:
            self._training_seconds, self._training_start = self.training_seconds, None


class Reporter:
    """Writes and prints the reports of the steps after `step`, in order, in the first process.

    Args:
        workdir: the run's folder.
        recipe: the run's recipe.
        timer: measures images per second.
        step: steps taken before this launch.
        epoch_steps: steps in an epoch, which need not be whole.
        total_steps: steps in the run.
        parameter_names: of the gradients in a report.
    """

    def __init__(
        self,
        workdir: Path,
        recipe: Recipe,
        timer: RunTimer,
        step: int,
        *,
        epoch_steps: float,
        total_steps: int,
        parameter_names: Sequence[str],
    ) -> None:
        from tqdm import tqdm

        self._recipe, self._task, self._timer, self._step = recipe, recipe.task, timer, step
        self._epoch_steps, self._total_steps, self._parameter_names = epoch_steps, total_steps, parameter_names
        self._loss: float | None = None  # of the step before
        self._rate_from = (step, timer.training_seconds)
        is_main, images = jax.process_index() == 0, recipe.batch_size
        self._log = MetricsLog(workdir, step) if is_main else None
        self._bar = tqdm(
            total=total_steps * images,
            initial=step * images,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=None if is_main else True,  # None: no bar where the output is not a terminal
        )

    def steps(self, reports: Iterable[StepReport]) -> None:
        """Takes the reports of the next steps.

        Raises:
            NonFiniteError: one of them has a number that is not finite.
        """
        for report in reports:
            self._step += 1
            check_report(self._step, report, self._parameter_names, self._loss)
            self._loss = loss = float(report.loss)
            metric = float(report.metric)
            with contextlib.suppress(OSError):  # of a terminal that has gone
                self._bar.set_postfix_str(f"loss {loss:.4f}, {self._task.metric} {metric:.4g}", refresh=False)
                self._bar.update(self._recipe.batch_size)
            if self._step % self._recipe.log_every == 0:
                self._write(
                    train_loss=loss,
                    **{f"train_{self._task.metric}": metric},
                    learning_rate=float(report.learning_rate),
                    gradient_norm=float(np.sqrt(report.gradient_squares.sum(dtype=np.float64))),
                    images_per_second=self._images_per_second(),
                )

    def evaluation(self, scores: Scores) -> None:
        """Takes an evaluation after the last step."""
        self._write(**scores)
        epoch = self._step / self._epoch_steps
        log_info(f"epoch {epoch:.1f}, step {self._step} of {self._total_steps}: {self._task.summary_line(scores)}")

    def sync(self) -> None:
        """Makes the rows so far durable: a checkpoint of this step relies on them."""
        if self._log:
            self._log.sync()

    def close(self) -> None:
        """Ends the bar and the files."""
        with contextlib.suppress(OSError):
            self._bar.close()
        if self._log:
            self._log.close()

    def _write(self, **values: float | None) -> None:
        if self._log:
            self._log.write(self._step, self._step / self._epoch_steps, **values)

    def _images_per_second(self) -> float:
        """Since the last call."""
        (step, seconds), self._rate_from = self._rate_from, (self._step, self._timer.training_seconds)
        return (self._step - step) * self._recipe.batch_size / (self._rate_from[1] - seconds)


class MetricsLog:
    """Appends rows to `metrics.jsonl` and TensorBoard's events in a run's folder.

    Rows of steps after `step`, where this launch resumes, are dropped first: each step has one row, of what lasted.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        from tensorboardX import SummaryWriter

        path = workdir / METRICS_FILE
        kept = [row for row in read_metrics(workdir) if row["step"] <= step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", buffering=1)
        self._board: Any = SummaryWriter(str(workdir), purge_step=step + 1, flush_secs=10)

    def write(self, step: int, epoch: float, **values: float | None) -> None:
        """Adds one row. None is a number that is not finite."""
        self._file.write(json.dumps({"step": step, "epoch": epoch, **values}, allow_nan=False) + "\n")
        board, self._board = self._board, None  # which stays so where it fails
        with ornament("Cannot write TensorBoard's events"):
            for name, value in values.items() if board else ():
                if value is not None:
                    board.add_scalar(name, value, step)
            self._board = board

    def sync(self) -> None:
        """Makes the rows so far durable."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Writes out what is still in memory."""
        self._file.close()
        if self._board:
            with ornament("Cannot write TensorBoard's events"):
                self._board.close()


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


def log_info(line: str) -> None:
    """Prints a line, once for all processes, above a bar where there is one."""
    from tqdm import tqdm

    if jax.process_index() == 0:
        with contextlib.suppress(OSError):
            tqdm.write(line)


@contextlib.contextmanager
def ornament(failure: str) -> Iterator[None]:
    """Around what a run can do without: an error in it is a warning that begins with `failure`."""
    try:
        yield
    except Exception as error:  # of libraries that draw and write
        _log.warning("%s: %s.", failure, one_line(error))


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


def check_report(step: int, report: StepReport, parameter_names: Sequence[str], previous_loss: float | None) -> None:
    """Raises `NonFiniteError` where training step `step` (the first is 1) met anything infinite or not a number.

    The named cause is the first that fails of the batch, the loss and the gradients, the order in which a step meets
    them.
    """
    bad = [
        name for name, square in zip(parameter_names, report.gradient_squares, strict=True) if not np.isfinite(square)
    ]
    if invalid := [problem for problem, found in report.invalid.items() if found]:
        raise NonFiniteError(f"Stopped at step {step}: the batch holds {' and '.join(invalid)}; check the data.")
    if not np.isfinite(report.loss):
        before = "" if previous_loss is None else f", after {previous_loss:.4g} a step before"
        raise NonFiniteError(f"Stopped at step {step}: the loss is {report.loss} on a finite batch{before}; {_ADVICE}.")
    if bad:
        raise NonFiniteError(
            f"Stopped at step {step}: the loss is {report.loss:.4g}, but the gradient of {_listed(bad)} is not finite; "
            f"{_ADVICE}."
        )


def check_variables(step: int, variables: Variables) -> None:
    """Raises `NonFiniteError` naming what in the state after `step` is not finite. Waits for the devices."""
    names, leaves = leaf_names(variables), jax.tree.leaves(variables)
    bad = [name for name, leaf in zip(names, leaves, strict=True) if not _is_finite(leaf)]
    if bad:
        raise NonFiniteError(f"Stopped at step {step}: after the update {_listed(bad)} is not finite; {_ADVICE}.")


def _is_finite(leaf: jax.Array) -> bool:
    return not jnp.issubdtype(leaf.dtype, jnp.floating) or bool(np.isfinite(np.asarray(leaf)).all())


def _listed(names: list[str]) -> str:
    return f"`{names[0]}`" if len(names) == 1 else f"`{names[0]}` (and of {len(names) - 1} more)"
