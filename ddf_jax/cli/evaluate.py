"""`ddf evaluate`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from ddf_jax.cli.command import Checkpoint, CommandResult, RecipeFile


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Score a run on its test data, or on other data.

    RUN comes first. `--data` options replace fields of its recipe; the classes must be the same. `--corruptions` adds
    the errors of a classifier under those of ImageNet-C, by name, by family (noise, blur, weather, digital), the
    fifteen of the benchmark, or all nineteen.

    Examples:
      ddf evaluate runs/digits
      ddf evaluate runs/photos --checkpoint best --data.folder ~/more_photos
      ddf evaluate runs/furniture_ddf --corruptions all --severities 1 3 5
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder."""
    data: Annotated[Any, tyro.conf.FlagConversionOff]
    """Other data than the recipe's."""
    checkpoint: Checkpoint = "newest"
    recipe_file: RecipeFile = None
    corruptions: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")] = ()
    """Corruptions of the cropped and resized images, benchmark, or all; none by default."""
    severities: Annotated[tuple[int, ...], tyro.conf.arg(metavar="1..5 [1..5 ...]")] = (1, 2, 3, 4, 5)
    """Severities of the corruptions."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the scores as JSON, in 0..1, also those of detectors, which are in percent else."""

    def run(self) -> CommandResult:
        from ddf_jax.training.evaluate import evaluate
        from ddf_jax.training.processes import initialize_processes
        from ddf_jax.training.run import load_run

        initialize_processes()
        run = load_run(self.folder, self.checkpoint, recipe_file=self.recipe_file)
        data = None if self.data == run.recipe.data else self.data
        task = run.recipe.task
        if self.corruptions:
            from ddf_jax.training.reporting import log_info
            from ddf_jax.training.robustness import robustness, robustness_table

            found = robustness(run, self.corruptions, self.severities, data=data, report=log_info)
            line = f"{found['name']}, step {found['step']}: {task.summary_line(found)}."
            return CommandResult(found, f"{line}\n\nErrors in percent by severity:\n\n{robustness_table(found)}")
        scores = evaluate(run, data)
        line = f"{scores['name']}, step {scores['step']}: {task.summary_line(scores)}."
        table = task.score_table(scores, run.info)
        return CommandResult(scores, f"{line}\n\n{table}" if table else line)
