"""Relative errors between two traces, and the report of a comparison."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddf_jax.verify.trace import TRACE_KINDS, TrainingTrace

# A gradient may be 0 in theory (that of a bias in front of a BatchNorm) and consist of rounding in practice. So the
# error of a parameter's gradient is relative to its largest element or this share of its layer's, whichever is larger.
LAYER_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of one comparison.

    Args:
        model: name of the model or upsampler.
        dtype: dtype of the Flax side's arithmetic.
        size: height and width of the images.
        tolerance: largest relative error that passes.
        errors: relative errors by kind of value (`TRACE_KINDS`; an upsampler has fewer), then by official name.
    """

    model: str
    dtype: str
    size: tuple[int, int]
    tolerance: float
    errors: Mapping[str, Mapping[str, float]]

    @property
    def worst(self) -> tuple[str, float]:
        """The tensor with the largest relative error, such as "gradient layer4.0.bn1.bias", and that error."""
        return max(
            ((f"{kind} {name}", error) for kind, errors in self.errors.items() for name, error in errors.items()),
            key=lambda item: item[1],
        )

    @property
    def passed(self) -> bool:
        return self.worst[1] <= self.tolerance

    def as_json(self) -> dict[str, Any]:
        what, error = self.worst
        return {
            "model": self.model,
            "dtype": self.dtype,
            "size": list(self.size),
            "passed": self.passed,
            "tolerance": self.tolerance,
            "worst": {"what": what, "relative_error": error if np.isfinite(error) else None},
        }


def relative_errors(ours: TrainingTrace, theirs: TrainingTrace) -> dict[str, dict[str, float]]:
    """For each tensor, max|ours - theirs| / max|theirs|; infinite where one is missing or not finite.

    Layers that exist on one side only, or whose shapes differ, are left out; the layers behind them show their effect.
    Gradients have the denominator that `LAYER_SHARE` describes.
    """
    errors: dict[str, dict[str, float]] = {}
    for kind in (kind for kind in TRACE_KINDS if theirs.get(kind)):
        layers = kind in ("evaluation", "training")
        names = [name for name in theirs[kind] if not layers or _comparable(ours[kind].get(name), theirs[kind][name])]
        scales = _gradient_scales(theirs[kind]) if kind == "gradient" else {}
        errors[kind] = {
            name: _relative_error(ours[kind].get(name), theirs[kind][name], scales.get(name, 0.0)) for name in names
        }
    return errors


def format_table(reports: Sequence[Report]) -> str:
    """A line for each report: the largest error of each kind, the verdict, and the tensor with the largest error."""
    header = ["model", "dtype", "size", *TRACE_KINDS, "tolerance", "verdict", "worst"]
    rows = [
        [
            report.model,
            report.dtype,
            f"{report.size[0]}×{report.size[1]}",
            *(f"{max(report.errors[kind].values()):.1e}" if kind in report.errors else "" for kind in TRACE_KINDS),
            f"{report.tolerance:.0e}",
            "passed" if report.passed else "FAILED",
            report.worst[0],
        ]
        for report in reports
    ]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (header, *rows))


def _comparable(ours: np.ndarray | None, theirs: np.ndarray) -> bool:
    return ours is not None and ours.shape == theirs.shape


def _gradient_scales(gradients: Mapping[str, np.ndarray]) -> dict[str, float]:
    """By name, `LAYER_SHARE` of the largest element of the layer's gradients."""
    largest: dict[str, float] = {}
    for name, value in gradients.items():
        layer = name.rpartition(".")[0]
        largest[layer] = max(largest.get(layer, 0.0), float(np.abs(value).max()))
    return {name: LAYER_SHARE * largest[name.rpartition(".")[0]] for name in gradients}


def _relative_error(ours: np.ndarray | None, theirs: np.ndarray, least_scale: float) -> float:
    if ours is None or ours.shape != theirs.shape:
        return float("inf")
    difference = float(np.abs(ours - theirs).max())
    scale = max(float(np.abs(theirs).max()), least_scale)
    if difference == 0:
        return 0.0
    error = difference / scale if scale > 0 else float("inf")
    return error if np.isfinite(error) else float("inf")
