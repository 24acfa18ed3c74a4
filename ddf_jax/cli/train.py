"""`ddf train`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ddf_jax.cli.command import Result
from ddf_jax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a recipe, or go on with a run of it that was stopped.

    RECIPE comes first: the name of a shipped recipe, or the path of a Python file that defines `recipe`. The other
    options replace fields of it; `ddf train RECIPE --help` shows what it sets.

    Examples:
      ddf train digits
      ddf train digits --optimizer.learning-rate 0.1 --model.options width=64 --workdir runs/wide
      ddf train my_recipe.py --data.folder ~/photos --json
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """A shipped recipe or a .py file."""
    recipe: Annotated[Recipe, tyro.conf.FlagConversionOff, tyro.conf.arg(name="")]
    workdir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run's folder instead of runs/NAME."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the summary as JSON; progress goes to standard error."""

    def run(self) -> Result:
        from ddf_jax.training.loop import train
        from ddf_jax.training.mesh import initialize_processes
        from ddf_jax.training.tasks import task_of

        initialize_processes()
        folder = self.workdir or Path("runs", self.recipe.name)
        summary = train(self.recipe, folder)
        text = (
            f"{summary['name']}: {task_of(self.recipe).headline(summary)} after {summary['steps']} steps in "
            f"{summary['seconds']:.0f} s, {summary['images_per_second']:.0f} images/s. Everything is in {folder}."
        )
        return Result(summary, text)
