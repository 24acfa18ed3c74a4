"""`ddf evaluate`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ddf_jax.cli.command import CommandResult, RecipeFile


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Score a run's newest checkpoint on the data that its recipe tests on; the scores of detectors are in percent.

    Example:
      ddf evaluate runs/digits
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    recipe_file: RecipeFile = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the scores as JSON, in 0..1."""

    def run(self) -> CommandResult:
        from ddf_jax.training.evaluate import evaluate
        from ddf_jax.training.processes import initialize_processes
        from ddf_jax.training.run import load_run

        initialize_processes()
        run = load_run(self.folder, recipe_file=self.recipe_file)
        scores = evaluate(run)
        task = run.recipe.task
        line = f"{scores['name']}, step {scores['step']}: {task.summary_line(scores)}."
        table = task.score_table(scores)
        return CommandResult(scores, f"{line}\n\n{table}" if table else line)
