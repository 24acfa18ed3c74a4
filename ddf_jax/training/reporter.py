"""Tells what a run does as it does it, to files and to people, and is the first to see a number that is not finite."""

from collections.abc import Iterable, Sequence

import jax
import numpy as np

from ddf_jax.training.clock import Clock
from ddf_jax.training.finite import check_report
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.run_folder import RunFolder
from ddf_jax.training.step import StepReport
from ddf_jax.training.tasks import task_of
from ddf_jax.training.tasks.task import Scores
from ddf_jax.training.writers import MetricsLog, Progress, say


class Reporter:
    """Reads the reports of the steps after `step`, in order. Only the first process writes and prints.

    Args:
        epoch_steps: steps in an epoch, which need not be whole.
        total_steps: steps in the run.
        parameter_names: of the gradients in a report.
    """

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        clock: Clock,
        step: int,
        *,
        epoch_steps: float,
        total_steps: int,
        parameter_names: Sequence[str],
    ) -> None:
        self._recipe, self._clock, self._task = recipe, clock, task_of(recipe)
        self._epoch_steps, self._total_steps, self._parameter_names = epoch_steps, total_steps, parameter_names
        self._step = step
        self._loss: float | None = None  # of the step before
        self._rate_from = (step, clock.training_seconds)
        self._log = MetricsLog(folder.path, step) if jax.process_index() == 0 else None
        self._progress = Progress(images_done=step * recipe.batch_size, images=total_steps * recipe.batch_size)

    def steps(self, reports: Iterable[StepReport]) -> None:
        """Takes the reports of the next steps.

        Raises:
            NonFiniteError: one of them met a number that is not finite.
        """
        for report in reports:
            self._step += 1
            check_report(self._step, report, self._parameter_names, self._loss)
            self._loss = loss = float(report.loss)
            quality = float(report.quality)
            self._progress.advance(self._recipe.batch_size, self._task.progress(loss, quality))
            if self._step % self._recipe.log_every == 0:
                self._write(
                    train_loss=loss,
                    **{f"train_{self._task.quality}": quality},
                    learning_rate=float(report.learning_rate),
                    gradient_norm=float(np.sqrt(report.gradient_squares.sum(dtype=np.float64))),
                    images_per_second=self._images_per_second(),
                )

    def evaluation(self, scores: Scores) -> None:
        """Takes an evaluation after the last step."""
        self._write(**scores)
        say(
            f"epoch {self._step / self._epoch_steps:.1f}, step {self._step} of {self._total_steps}: "
            f"{self._task.headline(scores)}, {self._task.details(scores)}"
        )

    def close(self) -> None:
        """Ends the bar and the files."""
        self._progress.close()
        if self._log:
            self._log.close()

    def _write(self, **values: float | None) -> None:
        if self._log:
            self._log.write(self._step, self._step / self._epoch_steps, **values)

    def _images_per_second(self) -> float:
        """Since the last time it was asked."""
        (step, seconds), self._rate_from = self._rate_from, (self._step, self._clock.training_seconds)
        return (self._step - step) * self._recipe.batch_size / (self._rate_from[1] - seconds)
