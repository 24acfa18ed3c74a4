"""The evaluations of a run while it trains: scores, of the averaged weights too, and a picture."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from ddf_jax.data.info import DataInfo
from ddf_jax.data.pipeline import eval_batches
from ddf_jax.training.devices import global_batch
from ddf_jax.training.evaluate import evaluate_batches, evaluation_source
from ddf_jax.training.metrics import ornament
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.state import Variables, averaged_model
from ddf_jax.training.tasks import EMA, Batch, DrawsPicture, DrawsScores, Scores, numbers
from ddf_jax.training.workdir import RunFolder

Program = Callable[[Variables, Batch], Any]
"""`(model's variables, batch) -> …`."""


@dataclasses.dataclass
class Evaluator:
    """Scores a model on the recipe's evaluation examples.

    Args:
        recipe: the run's.
        info: its data.
        folder: where pictures go.
        mesh: the devices.
        share: `batch_size`, `process_index` and `process_count`, of this process.
        eval_step: from `compile_eval_step`.
        predict_step: from `jit_predict`.
    """

    recipe: Recipe
    info: DataInfo
    folder: RunFolder
    mesh: Mesh
    share: dict[str, int]
    eval_step: Program
    predict_step: Program

    def __post_init__(self) -> None:
        self._source = evaluation_source(self.recipe.task, self.recipe.data)
        self._examples = self.recipe.task.examples()

    def __call__(self, variables: Variables, step: int, should_stop: Callable[[], bool]) -> Scores | None:
        """Scores after `step`, those of the averaged weights with the prefix `ema_`; None where it was to stop."""
        scores = self._scores(variables["model"], should_stop)
        if scores is not None:
            self._draw_scores(scores, step)  # of the last weights
        if scores is None or "ema" not in variables:
            return scores and numbers(scores)
        averaged = self._scores(averaged_model(variables), should_stop)
        return averaged and numbers(scores) | {f"{EMA}{name}": score for name, score in numbers(averaged).items()}

    def draw(self, variables: Variables, step: int) -> None:
        """Leaves the picture of the evaluation after `step`, where the task draws one."""
        task = self.recipe.task
        if not isinstance(task, DrawsPicture):
            return
        with self._batches() as batches:
            batch = next(batches)
        prediction = jax.device_get(self.predict_step(variables["model"], global_batch(batch, self.mesh)))
        if jax.process_index() == 0:
            with ornament("Cannot draw a picture of the evaluation"):
                self.folder.write_picture(step, task.draw(batch, prediction, self.info))

    def _draw_scores(self, scores: Scores, step: int) -> None:
        task = self.recipe.task
        if isinstance(task, DrawsScores) and jax.process_index() == 0:
            with ornament("Cannot draw the scores of the evaluation"):
                if (picture := task.draw_scores(scores, self.info)) is not None:
                    self.folder.write_picture(step, picture)

    def _scores(self, model: Variables, should_stop: Callable[[], bool]) -> Scores | None:
        with self._batches() as batches:
            return evaluate_batches(
                self.eval_step,
                model,
                batches,
                self.mesh,
                task=self.recipe.task,
                source=self._source,
                should_stop=should_stop,
            )

    def _batches(self) -> contextlib.closing[Any]:
        return contextlib.closing(eval_batches(self.recipe.data, self._examples, **self.share))
