"""`ddf export`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ddf_jax.cli.command import Checkpoint, CommandResult, RecipeFile, explained
from ddf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ExportCommand:
    """Write a run as a file that runs without this package.

    stablehlo: one file that JAX and NumPy run on each of the platforms. onnx: for ONNX Runtime, of networks without
    dynamic filters, at fixed sizes. savedmodel: a folder for TensorFlow. Images enter as uint8; the program normalises
    them. onnx and savedmodel need the extras 'ddf-jax[onnx]' and 'ddf-jax[savedmodel]'.

    Example:
      ddf export runs/digits digits.npz
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The file, or of a savedmodel the folder, to write."""
    platforms: Annotated[str | None, tyro.conf.arg(metavar="NAME,NAME")] = None
    """Platforms of a stablehlo, of cpu, cuda, rocm and tpu; default: cpu,cuda."""
    format: Literal["stablehlo", "onnx", "savedmodel"] = "stablehlo"
    """The file's format."""
    batch_size: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Images of every call; default: any, of detectors 1."""
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="H W")] = None
    """Height and width of every image; default: any. With both sizes CUDA runs the kernels, else XLA's operator."""
    checkpoint: Checkpoint = "newest"
    recipe_file: RecipeFile = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `{name, step, model, task, platforms, programs: [{inputs, outputs, kernels}]}`."""

    def run(self) -> CommandResult:
        from ddf_jax.serving.exporting import export_run
        from ddf_jax.training.run import load_run

        if self.format == "stablehlo" and self.out.suffix != ".npz":
            raise UserError(f"OUT must end in .npz for NumPy to read it, got {self.out}.")
        if self.format != "stablehlo" and self.platforms is not None:
            raise UserError(f"--platforms must be left out with --format {self.format}, got {self.platforms}.")
        run = load_run(self.folder, self.checkpoint, recipe_file=self.recipe_file)
        sizes = {"batch_size": self.batch_size, "image_size": self.image_size}
        with explained():
            if self.format == "stablehlo":
                facts = export_run(run, self.out, platforms=tuple((self.platforms or "cpu,cuda").split(",")), **sizes)
            else:
                from ddf_jax.serving.conversion import CONVERTERS

                facts = CONVERTERS[self.format](run, self.out, **sizes)
        return CommandResult(facts, "\n".join([f"{self.out}: {facts['name']}, step {facts['step']}.", *_lines(facts)]))


def _lines(facts: dict) -> list[str]:
    lines = []
    for program in facts["programs"]:
        inputs, outputs = (
            ", ".join(f"{name} {kind['dtype']} [{', '.join(map(str, kind['shape']))}]" for name, kind in kinds.items())
            for kinds in (program["inputs"], program["outputs"])
        )
        lines += [f"  takes {inputs}", f"  gives {outputs}"]
    return lines
