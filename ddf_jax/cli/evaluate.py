"""`ddf evaluate`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from ddf_jax.cli.command import Checkpoint, CommandResult, RecipeFile


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Score a run on the data that its recipe tests on, or on others; the scores of detectors are in percent.

    RUN comes first. The `--data` options replace fields of its recipe; the classes must be the same.

    Examples:
      ddf evaluate runs/digits
      ddf evaluate runs/photos --checkpoint best --data.folder ~/more_photos
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    data: Annotated[Any, tyro.conf.FlagConversionOff]
    """Other data than the recipe's."""
    checkpoint: Checkpoint = "newest"
    recipe_file: RecipeFile = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the scores as JSON, in 0..1."""

    def run(self) -> CommandResult:
        from ddf_jax.training.evaluate import evaluate
        from ddf_jax.training.processes import initialize_processes
        from ddf_jax.training.run import load_run

        initialize_processes()
        run = load_run(self.folder, self.checkpoint, recipe_file=self.recipe_file)
        scores = evaluate(run, None if self.data == run.recipe.data else self.data)
        task = run.recipe.task
        line = f"{scores['name']}, step {scores['step']}: {task.summary_line(scores)}."
        table = task.score_table(scores, run.info)
        return CommandResult(scores, f"{line}\n\n{table}" if table else line)
