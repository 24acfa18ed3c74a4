"""`ddf convert`."""

import dataclasses
import functools
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ddf_jax.cli.command import CommandResult


@dataclasses.dataclass(frozen=True)
class ConvertCommand:
    """Rewrite a checkpoint file in the other naming, the official (PyTorch) one or our own, or in another format.

    The suffixes state the formats: .safetensors, or .pth for PyTorch's own.

    Examples:
      ddf convert ddf_mul_resnet50.pth ddf_resnet50.safetensors --model ddf_resnet50
      ddf convert ours.safetensors official.pth
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """The file to read."""
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """The file to write."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """A model that the tensors must fit."""
    naming: Literal["official", "own"] | None = None
    """Naming of the target; default: official if the source has our own names, and the reverse."""
    ema: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take the averaged weights of a training script's checkpoint."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `{target, tensors}`."""

    def run(self) -> CommandResult:
        from ddf_jax.checkpoints import convert
        from ddf_jax.models import abstract

        model = None if self.model is None else functools.partial(abstract, self.model)
        count = convert(self.source, self.target, model=model, naming=self.naming, ema=self.ema)
        return CommandResult({"target": str(self.target), "tensors": count}, f"{self.target}: {count} tensors.")
