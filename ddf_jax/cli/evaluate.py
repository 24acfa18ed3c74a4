"""`ddf evaluate`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ddf_jax.cli.command import CommandResult, RecipeFile


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Score a run's newest checkpoint on the data that its recipe tests on.

    Example:
      ddf evaluate runs/digits
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    recipe_file: RecipeFile = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the scores as JSON."""

    def run(self) -> CommandResult:
        from ddf_jax.training.evaluate import evaluate
        from ddf_jax.training.processes import initialize_processes
        from ddf_jax.training.run import load_run

        initialize_processes()
        run = load_run(self.folder, recipe_file=self.recipe_file)
        scores = evaluate(run)
        line = run.recipe.task.summary_line(scores)
        return CommandResult(scores, f"{scores['name']}, step {scores['step']}: {line}.")
