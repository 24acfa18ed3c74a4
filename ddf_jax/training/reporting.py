"""A run's progress, in rows of metrics, a bar and lines; the check for finite numbers, and what to do where it fails.

What writes needs the `train` extra, and is imported when it is used.
"""

import contextlib
import functools
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.errors import NonFiniteError
from ddf_jax.training.leaves import leaf_names
from ddf_jax.training.metrics import MetricsLog
from ddf_jax.training.profiling import StepTimes
from ddf_jax.training.recipe import Recipe, recipe_to_json
from ddf_jax.training.resume import RunState
from ddf_jax.training.state import Variables
from ddf_jax.training.step import StepReport
from ddf_jax.training.tasks import Scores, summary_line
from ddf_jax.training.trackers import open_tracker

_log = logging.getLogger(__name__)

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
        self.times = StepTimes()
        """Of the loop, for the rows."""
        self._loss: float | None = None  # of the step before
        self._pending: list[StepReport] = []
        self._rate_from = (step, timer.training_seconds)
        is_main, images = jax.process_index() == 0, recipe.batch_size
        config = json.loads(recipe_to_json(recipe))
        trackers = {
            f"to {name}": functools.partial(open_tracker, name, workdir, recipe.name, config)
            for name in recipe.trackers
        }
        self._log = MetricsLog(workdir, step, trackers) if is_main else None
        self._bar = tqdm(
            total=total_steps * images,
            initial=step * images,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=None if is_main else True,  # None: no bar where the output is not a terminal
        )

    def steps(self, reports: Iterable[StepReport]) -> None:
        """Takes the reports of the next steps. Those behind one that failed are written by the next call.

        Raises:
            NonFiniteError: one of them has a number that is not finite.
        """
        self._pending += reports
        while self._pending:
            report, self._step = self._pending.pop(0), self._step + 1
            check_report(self._step, report, self._parameter_names, self._loss)
            self._loss = loss = float(report.loss)
            name, metric = self._task.metric, None if report.metric is None else float(report.metric)
            with contextlib.suppress(OSError):  # of a terminal that has gone
                shown = "" if metric is None else f", {name} {metric:.4g}"
                self._bar.set_postfix_str(f"loss {loss:.4f}{shown}", refresh=False)
                self._bar.update(self._recipe.batch_size)
            if self._step % self._recipe.log_every == 0:
                self._write(
                    train_loss=loss,
                    **({} if metric is None else {f"train_{name}": metric}),
                    **{f"train_{part}": float(value) for part, value in report.losses.items()},
                    learning_rate=float(report.learning_rate),
                    gradient_norm=_finite(np.sqrt(report.gradient_squares.sum(dtype=np.float64))),
                    **({} if report.loss_scale is None else {"loss_scale": float(report.loss_scale)}),
                    **self._speed(),
                )

    def evaluation(self, scores: Scores) -> None:
        """Takes an evaluation after the last step."""
        self._write(**scores)
        epoch = self._step / self._epoch_steps
        log_info(f"epoch {epoch:.1f}, step {self._step} of {self._total_steps}: {summary_line(self._task, scores)}")

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

    def _speed(self) -> dict[str, float]:
        """Since the last call."""
        (step, seconds), self._rate_from = self._rate_from, (self._step, self._timer.training_seconds)
        steps = self._step - step
        rate = steps * self._recipe.batch_size / (self._rate_from[1] - seconds)
        return {"images_per_second": rate, **self.times.take(steps)}


def summarize(recipe: Recipe, state: RunState, timer: RunTimer, parameters: int) -> dict[str, Any]:
    """The results of a finished run.

    `seconds` is all wall-clock time over all launches, without what a kill undid, `images_per_second` that of training
    steps alone.
    """
    return {
        "name": recipe.name,
        "model": recipe.model.name,
        "dataset": str(recipe.data.folder or recipe.data.dataset),
        "parameters": parameters,
        **(state.evaluation or {}),
        "steps": state.step,
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "dtype": recipe.dtype,
        "seconds": round(timer.seconds, 3),
        "images_per_second": round(state.step * recipe.batch_size / timer.training_seconds, 1),
    }


def log_info(line: str) -> None:
    """Prints a line, once for all processes, above a bar where there is one."""
    from tqdm import tqdm

    if jax.process_index() == 0:
        with contextlib.suppress(OSError):
            tqdm.write(line)


def check_report(step: int, report: StepReport, parameter_names: Sequence[str], previous_loss: float | None) -> None:
    """Raises `NonFiniteError` where training step `step` (the first is 1) met anything infinite or not a number.

    The named cause is the first that fails of the batch, the loss and the gradients, as a step meets them.
    """
    bad = [
        name for name, square in zip(parameter_names, report.gradient_squares, strict=True) if not np.isfinite(square)
    ]
    scaled = report.loss_scale is not None and report.loss_scale >= 1  # the step was undone, and the scale is halved
    if invalid := [problem for problem, found in report.invalid.items() if found]:
        raise NonFiniteError(f"Stopped at step {step}: the batch holds {' and '.join(invalid)}; check the data.")
    if not np.isfinite(report.loss):
        before = "" if previous_loss is None else f", after {previous_loss:.4g} a step before"
        raise NonFiniteError(f"Stopped at step {step}: the loss is {report.loss} on a finite batch{before}; {_ADVICE}.")
    if bad and not scaled:
        raise NonFiniteError(
            f"Stopped at step {step}: the loss is {report.loss:.4g}, but the gradient of {_listed(bad)} is not finite; "
            f"{_ADVICE}."
        )


def check_variables(step: int, variables: Variables) -> None:
    """Raises `NonFiniteError` naming what in the state after `step` is not finite. Waits for the devices."""
    names, leaves = leaf_names(variables), jax.tree.leaves(variables)
    floats = [pair for pair in zip(names, leaves, strict=True) if jnp.issubdtype(pair[1].dtype, jnp.floating)]
    bad = [name for name, leaf in floats if not all(np.isfinite(part).all() for part in _parts(leaf))]
    if bad:
        raise NonFiniteError(f"Stopped at step {step}: after the update {_listed(bad)} is not finite; {_ADVICE}.")


def rescue(recipe: Recipe, path: Path, saved: int | None) -> str:
    """How a run that diverged can be resumed."""
    if not saved:
        return "No step was saved."
    rate = recipe.optimizer.learning_rate / 10
    return (
        f"The checkpoint of step {saved} stays. To resume from there: --resume-from-step {saved} "
        f"--optimizer.learning-rate {rate:g} --allow-change optimizer.learning_rate. To start another run from its "
        f"weights: --init-from {path} --init-step {saved} --workdir DIR"
    )


def _finite(value: Any) -> float | None:
    """A number, as rows have it."""
    return float(value) if np.isfinite(value) else None


def _parts(leaf: jax.Array) -> list[Any]:
    """The array, or of one that other processes hold too what this one has."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return [np.asarray(leaf)]
    return [np.asarray(shard.data) for shard in leaf.addressable_shards]


def _listed(names: list[str]) -> str:
    return f"`{names[0]}`" if len(names) == 1 else f"`{names[0]}` (and of {len(names) - 1} more)"
