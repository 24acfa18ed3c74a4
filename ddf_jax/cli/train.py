"""`ddf train`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from ddf_jax.cli.command import CommandResult


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Train a recipe, or resume a run of it that was stopped.

    RECIPE comes first: a shipped recipe's name, or a Python file that defines `recipe`, which is executed. Further
    options replace fields of the recipe.

    Examples:
      ddf train digits --optimizer.learning-rate 0.1 --workdir runs/fast
      ddf train digits --epochs 80 --allow-change epochs
      ddf train pets.py --init-from runs/photos --init-head fresh
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """The name of a shipped recipe, or a .py file."""
    recipe: Annotated[Any, tyro.conf.FlagConversionOff, tyro.conf.arg(name="")]  # a `Recipe`, which imports JAX
    workdir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run's folder; default: runs/NAME."""
    resume_from_step: Annotated[int | None, tyro.conf.arg(metavar="STEP")] = None
    """Go back to this checkpoint of the run; later ones are kept under other names."""
    allow_change: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD [FIELD ...]")] = ()
    """Fields in which the recipe may differ from the run's so far."""
    profile: Annotated[int, tyro.conf.arg(metavar="STEPS")] = 0
    """Steps to record, after the first ten, for TensorBoard or Perfetto; 0: none."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the summary as JSON; progress goes to standard error."""

    def run(self) -> CommandResult:
        from ddf_jax.training.processes import initialize_processes
        from ddf_jax.training.tasks import summary_line
        from ddf_jax.training.train import train

        initialize_processes()
        folder = self.workdir or Path("runs", self.recipe.name)
        summary = train(
            self.recipe,
            folder,
            resume_from_step=self.resume_from_step,
            allow_change=self.allow_change,
            profile=self.profile,
            recipe_file=self.source if self.source.endswith(".py") else None,
        )
        text = (
            f"{summary['name']}: {summary_line(self.recipe.task, summary)} after {summary['steps']} steps in "
            f"{summary['seconds']:.0f} s, {summary['images_per_second']:.0f} images/s while training. "
            f"Everything is in {folder}."
        )
        return CommandResult(summary, text)
