"""`ddf inspect`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ddf_jax.cli.command import Checkpoint, CommandResult, RecipeFile
from ddf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class InspectCommand:
    """Draw generated filters, Grad-CAM and spectra under noise.

    It writes one PNG for each kind of picture, with a row for each image; filters of networks that generate them.

    Examples:
      ddf inspect runs/digits seven.png one.png
      ddf inspect runs/digits seven.png --layer stages.0.0 --out pictures
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]
    """Image files, at most 16, prepared like the run's test images."""
    layer: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """A module's path, such as stages.1.0.conv2; default: the last block of the last stage but one."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The folder of the pictures; default: RUN/inspect."""
    checkpoint: Checkpoint = "newest"
    recipe_file: RecipeFile = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `[{kind, layer, file}]`."""

    def run(self) -> CommandResult:
        if not self.images:
            raise UserError("`ddf inspect` needs the path of an IMAGE after the RUN.")
        from ddf_jax.data.reading import read_image
        from ddf_jax.files import write_atomically
        from ddf_jax.inspect import inspect_run
        from ddf_jax.inspect.figures import figure_png
        from ddf_jax.training.run import load_run

        run = load_run(self.folder, self.checkpoint, recipe_file=self.recipe_file)
        images = [read_image(image, run.info, run.recipe.data) for image in self.images]
        pictures = inspect_run(run, images, layer=self.layer)
        folder = self.out or self.folder / "inspect"
        rows = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for picture in pictures:
                file = folder / f"{picture.kind}-{picture.layer}.png"
                write_atomically(file, figure_png(picture.figure))
                rows.append({"kind": picture.kind, "layer": picture.layer, "file": str(file)})
        except OSError as error:
            raise UserError(f"Cannot write pictures to {folder}: {error.strerror}. Choose another `--out`.") from None
        return CommandResult(rows, "\n".join(row["file"] for row in rows))
