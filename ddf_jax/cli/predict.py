"""`ddf predict`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from ddf_jax.cli.command import Checkpoint, CommandResult, RecipeFile
from ddf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class PredictCommand:
    """Classify images: the five most likely classes.

    Example:
      ddf predict runs/digits seven.png one.jpg
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]
    """Image files, prepared like the run's test images."""
    checkpoint: Checkpoint = "newest"
    recipe_file: RecipeFile = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `[{image, predictions: [{class, probability}]}]`."""

    def run(self) -> CommandResult:
        if not self.images:
            raise UserError("`ddf predict` needs the path of an IMAGE after the RUN.")
        from ddf_jax.serving.services.classification import classification_row
        from ddf_jax.training.run import load_run, predict

        run = load_run(self.folder, self.checkpoint, recipe_file=self.recipe_file)
        probabilities = predict(run, self.images)
        names = run.info.class_names
        if not names:
            raise UserError(f"`ddf predict` needs a run of a classifier, got {self.folder}.")
        rows = [classification_row(str(path), p, names) for path, p in zip(self.images, probabilities, strict=True)]
        return CommandResult(rows, "\n".join(map(_text, rows)))


def _text(row: dict[str, Any]) -> str:
    return "\n".join(
        [row["image"], *(f"{guess['probability']:9.2%}  {guess['class']}" for guess in row["predictions"])]
    )
