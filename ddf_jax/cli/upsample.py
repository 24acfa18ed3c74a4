"""`ddf upsample`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ddf_jax.cli.command import Checkpoint, CommandResult, RecipeFile
from ddf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class UpsampleCommand:
    """Upsample a depth map to the resolution of an image.

    DEPTH is a grey PNG, TIFF or PGM of 16 bits in millimetres, a TIFF of floats in metres, or an NPY array of either;
    0, 65535 and non-finite numbers are holes. OUT is a grey PNG of 16 bits in millimetres without holes. For a run of
    scale S, an image of H×W pixels goes with a depth map of ⌈H/S⌉×⌈W/S⌉, whose pixel (i, j) lies at pixel
    (S·i + S/2, S·j + S/2) of the image. Both are read as stored, without EXIF orientation.

    Example:
      ddf upsample runs/joint_depth_4x out.png --depth depth.png --rgb photo.png
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT.png")]
    """The file to write."""
    depth: Annotated[Path, tyro.conf.arg(metavar="DEPTH")]
    """The depth map."""
    rgb: Annotated[Path, tyro.conf.arg(metavar="IMAGE")]
    """The image: any file that pillow reads."""
    depth_scale: Annotated[float | None, tyro.conf.arg(metavar="UNITS")] = None
    """Units of DEPTH per metre: 5000 for TUM RGB-D, 256 for KITTI; default: 1000 of integers, 1 of floats."""
    checkpoint: Checkpoint = "newest"
    recipe_file: RecipeFile = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `{out, height, width, scale}`."""

    def run(self) -> CommandResult:
        if self.out.suffix.lower() != ".png" or not self.out.parent.is_dir() or self.out.is_dir():
            raise UserError(f"OUT must be a .png file in a folder that exists, got {self.out}.")
        if self.depth_scale is not None and not 0 < self.depth_scale < float("inf"):
            raise UserError(f"--depth-scale must be the units per metre, a positive number, got {self.depth_scale}.")
        import numpy as np

        from ddf_jax.data.decode import encode_depth
        from ddf_jax.data.reading import read_depth, read_rgb
        from ddf_jax.files import write_atomically
        from ddf_jax.serving.services.depth_upsampling import LARGEST
        from ddf_jax.training.run import load_run, upsample

        run = load_run(self.folder, self.checkpoint, recipe_file=self.recipe_file)
        image, low = read_rgb(self.rgb, run.recipe.data.decoding), read_depth(self.depth, self.depth_scale)
        if low.max() > LARGEST:
            raise UserError(
                f"Depth must be at most {LARGEST} m, which OUT can hold, got {low.max():.4g} m in {self.depth}. Give "
                "--depth-scale, the units of DEPTH per metre."
            )
        result = upsample(run, image, low)
        # 0 and 65535 would mean that nothing was measured.
        data = encode_depth(np.clip(result, 0.001, LARGEST)).getvalue()
        try:
            write_atomically(self.out, data)
        except OSError as error:
            raise UserError(f"OUT must be a file that can be written, got {self.out}: {error.strerror}.") from None
        height, width = result.shape
        scale = -(-height // low.shape[0])
        document = {"out": str(self.out), "height": height, "width": width, "scale": scale}
        return CommandResult(document, f"{self.out}: {height}×{width}, {scale} times {low.shape[0]}×{low.shape[1]}.")
