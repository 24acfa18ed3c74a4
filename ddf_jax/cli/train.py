"""`ddf train`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from ddf_jax.cli.command import CommandResult


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Train a recipe, or resume a run of it that was stopped.

    RECIPE comes first: the name of a shipped recipe, or the path of a Python file that defines `recipe`. The other
    options replace fields of it; `ddf train RECIPE --help` shows what it sets.

    Examples:
      ddf train digits
      ddf train digits --optimizer.learning-rate 0.1 --model.options width=64 --workdir runs/wide
      ddf train my_recipe.py --data.folder ~/photos --json
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """A shipped recipe or a .py file."""
    recipe: Annotated[Any, tyro.conf.FlagConversionOff, tyro.conf.arg(name="")]  # a `Recipe`, which imports JAX
    workdir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run's folder instead of runs/NAME."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the summary as JSON; progress goes to standard error."""

    def run(self) -> CommandResult:
        from ddf_jax.training.processes import initialize_processes
        from ddf_jax.training.train import train

        initialize_processes()
        folder = self.workdir or Path("runs", self.recipe.name)
        summary = train(self.recipe, folder)
        text = (
            f"{summary['name']}: {self.recipe.task.summary_line(summary)} after {summary['steps']} steps in "
            f"{summary['seconds']:.0f} s, {summary['images_per_second']:.0f} images/s while training. "
            f"Everything is in {folder}."
        )
        return CommandResult(summary, text)
