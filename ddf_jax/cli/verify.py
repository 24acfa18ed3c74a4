"""`ddf verify`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ddf_jax.cli.command import CommandResult, explained
from ddf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class VerifyCommand:
    """Compare models with their PyTorch ports, or recorded numbers.

    With a port: every layer, gradient and statistic, and a training step; it needs torch, pip install 'ddf-jax[torch]'.
    With `--reference`: every quantity of its files, in float64, without torch.

    An error is max|difference| / max|theirs|, of integers and masks the share that differs. It may be 1e-9, and 1e-6
    where MMDetection rounds to float32 (loss_rpn_cls, loss_mask, the total, and their gradients). Where one is larger,
    the exit status is 1.

    Examples:
      ddf verify
      ddf verify 'ddf_up*'
      ddf verify ddf_resnet50 --size 224 224 --checkpoint ddf_mul_resnet50.pth
      ddf verify faster_rcnn_resnet50 --reference mmdet_faster_rcnn
    """

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[PATTERN]")] = "*"
    """A model, an upsampler (ddf_up, ddf_up_guided, carafe), or a shell pattern in quotes. Detectors, which take
    minutes, are left out where other models match too."""
    reference: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """PATH.json and PATH.npz, recorded from another implementation."""
    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Weights to compare with; default: random ones."""
    dtype: Literal["float64", "float32"] = "float64"
    """Dtype of our arithmetic; the port computes in float64."""
    size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="H W")] = None
    """Height and width of the images; default: 97 65, or what the model needs."""
    batch: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Number of images; default: 2, or what the model needs."""
    implementation: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Implementation of `dynamic_filter`; default: the best that runs here."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png")] = None
    """Draw the error of each layer into this file."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `[{model, dtype, size, passed, tolerance, worst: {what, relative_error}}]`; with `--reference`
    `[{quantity, relative_error, passed, tolerance}]`."""

    def run(self) -> CommandResult:
        return self._compare_with_ports() if self.reference is None else self._compare_with_reference(self.reference)

    def _compare_with_reference(self, reference: Path) -> CommandResult:
        changed = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]
        if given := [f"--{name}" for name in changed if name not in ("pattern", "reference", "json")]:
            raise UserError(f"A reference fixes weights, images and dtype: leave out {', '.join(given)}.")
        from ddf_jax.verify import format_comparisons, verify_reference

        comparisons = verify_reference(self.pattern, reference)
        failed = not all(comparison.passed for comparison in comparisons)
        rows = [comparison.as_json() for comparison in comparisons]
        return CommandResult(rows, format_comparisons(comparisons, str(reference)), status=int(failed))

    def _compare_with_ports(self) -> CommandResult:
        from ddf_jax.verify import draw_errors, format_table, verify

        if self.plot is not None and not self.plot.parent.is_dir():
            raise UserError(f"`--plot` must name a file in a folder that exists, got {self.plot}.")
        with explained():
            reports = verify(
                self.pattern,
                checkpoint=self.checkpoint,
                dtype=self.dtype,
                size=self.size,
                batch=self.batch,
                implementation=self.implementation,
            )
        if self.plot is not None:
            draw_errors(reports, self.plot)
        failed = not all(report.passed for report in reports)
        return CommandResult([report.as_json() for report in reports], format_table(reports), status=int(failed))
