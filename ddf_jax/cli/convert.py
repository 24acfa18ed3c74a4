"""`ddf convert`."""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ddf_jax.cli.command import Checkpoint, CommandResult, RecipeFile
from ddf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ConvertCommand:
    """Convert weights of a file or run to another naming or format.

    The namings are the official one, of the PyTorch repositories, and our own. The suffix states the format:
    .safetensors, or .pth for PyTorch's own.

    Examples:
      ddf convert ddf_mul_resnet50.pth ddf_resnet50.safetensors --model ddf_resnet50
      ddf convert ours.safetensors official.pth
      ddf convert runs/digits digits.safetensors --checkpoint 1000
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """The file to read, or a run's folder."""
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """The file to write."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """A model that the tensors of a file must fit."""
    naming: Annotated[Literal["official", "own"] | None, tyro.conf.arg(metavar="{official,own}")] = None
    """Naming of TARGET; default: the one that a file does not have, and own of a run."""
    ema: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the averaged weights of a PyTorch training script's checkpoint."""
    checkpoint: Checkpoint = "newest"
    recipe_file: RecipeFile = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `{target, tensors}`."""

    def run(self) -> CommandResult:
        count = self._write_run() if self.source.is_dir() else self._convert_file()
        return CommandResult({"target": str(self.target), "tensors": count}, f"{self.target}: {count} tensors.")

    def _write_run(self) -> int:
        if self.ema:
            raise UserError(f"`--ema` is for files; of a run such as {self.source} take --checkpoint newest:ema.")
        if self.model is not None:
            raise UserError(f"`--model` is for files: the run {self.source} has its own.")
        from ddf_jax.checkpoints import save_checkpoint
        from ddf_jax.training.run import load_run

        run = load_run(self.source, self.checkpoint, recipe_file=self.recipe_file)
        return save_checkpoint(run.model(), self.target, naming=self.naming or "own")

    def _convert_file(self) -> int:
        given = {"--checkpoint": self.checkpoint != "newest", "--recipe": self.recipe_file is not None}
        for option, is_given in given.items():
            if is_given:
                raise UserError(f"`{option}` needs the folder of a run as SOURCE, got {self.source}.")
        from ddf_jax.checkpoints import convert
        from ddf_jax.models import abstract

        model = None if self.model is None else functools.partial(abstract, self.model)
        return convert(self.source, self.target, model=model, naming=self.naming, ema=self.ema)
