"""The comparison of quantities with those that a reference has recorded."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ddf_jax.verify.reference import summary

TOLERANCE = 1e-9
SHOWN = 15  # quantities that pass, in a table
_PACKED = re.compile(r"(.+)_first([0-9]{1,6})_packbits")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One quantity of a reference and ours.

    Args:
        quantity: its name in the npz, or its path in the JSON.
        relative_error: as `compare` measures it; infinite where the two cannot be compared.
        tolerance: the largest error that passes.
        reason: why they cannot be compared.
    """

    quantity: str
    relative_error: float
    tolerance: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.relative_error <= self.tolerance

    def as_json(self) -> dict[str, Any]:
        error = self.relative_error
        return {
            "quantity": self.quantity,
            "relative_error": error if np.isfinite(error) else None,
            "passed": self.passed,
            "tolerance": self.tolerance,
        }


def compare(
    recorded: Mapping[str, np.ndarray | None], found: Mapping[str, np.ndarray], tolerance: Callable[[str], float]
) -> list[Comparison]:
    """Compares every recorded quantity.

    The error of numbers is max|ours - theirs| / max|theirs|, measured apart for what has a scale of its own: the sum,
    the sum of squares and the elements of a summary (the sum relative to the norm where that is larger, as it may
    cancel), and the boxes and scores of proposals. The error of integers and of packed masks is the share of the
    elements or bits that differ. It is infinite where ours is missing, has another shape or is not finite, and where a
    gradient is that of a frozen parameter on one side only.

    Args:
        recorded: by quantity. An array of one axis may be a summary of ours, and `NAME_first10_packbits` are the bits
            of the first 10 masks.
        found: ours, by quantity. Those that are not recorded are not compared.
        tolerance: of a quantity.
    """
    comparisons = []
    for name, theirs in recorded.items():
        error, reason = _error(name, theirs, found)
        comparisons.append(Comparison(name, error, tolerance(name), reason))
    return comparisons


def format_comparisons(comparisons: Sequence[Comparison], reference: str) -> str:
    """A line for each quantity that fails and for the worst others, by descending error, and the count.

    Args:
        comparisons: of all quantities.
        reference: its name.
    """
    ordered = sorted(comparisons, key=lambda c: (c.passed, -c.relative_error))
    failed = sum(not comparison.passed for comparison in comparisons)
    shown, others = ordered[: failed + SHOWN], ordered[failed + SHOWN :]
    rows = [("quantity", "relative error", "tolerance", "verdict")]
    for c in shown:
        error = c.reason or f"{c.relative_error:.1e}"
        rows.append((c.quantity, error, f"{c.tolerance:.0e}", "passed" if c.passed else "FAILED"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if others:
        lines.append(f"… and {len(others)} more, which pass, with at most {others[0].relative_error:.1e}")
    count = len(comparisons)
    verdict = f"{failed} of {count} quantities FAILED" if failed else f"all {count} quantities passed"
    return "\n".join([*lines, f"{reference}: {verdict}"])


def _error(name: str, theirs: np.ndarray | None, found: Mapping[str, np.ndarray]) -> tuple[float, str]:
    """The error and, where it is infinite, why."""
    ours = found.get(name)
    if theirs is None:
        return (0.0, "") if ours is None else (np.inf, "frozen there, trained here")
    if packed := _PACKED.fullmatch(name):
        masks = found.get(packed[1])
        ours = None if masks is None else np.packbits(masks[: int(packed[2])].astype(bool))
        if ours is not None and ours.shape == theirs.shape and theirs.dtype == np.uint8:
            return _share(np.unpackbits(theirs) != np.unpackbits(ours)), ""
    if ours is None:
        return np.inf, "not computed here"
    if theirs.shape == ours.shape:
        if theirs.dtype.kind != "f" and ours.dtype.kind != "f":
            return _share(theirs.astype(np.int64) != ours.astype(np.int64)), ""
        return _finite(max(_relative(*pair) for pair in _parts(name, theirs, ours)))
    if theirs.ndim == 1 and theirs.size > 2 and ours.ndim > 1 and ours.size and ours.dtype.kind == "f":
        return _finite(_of_summaries(theirs.astype(np.float64), summary(ours, theirs.size - 2)))
    return np.inf, f"has the shape {list(theirs.shape)} there, {list(ours.shape)} here"


def _parts(name: str, theirs: np.ndarray, ours: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    if "/proposals" in name and theirs.shape[-1:] == (5,):
        return [(theirs[..., :4], ours[..., :4]), (theirs[..., 4:], ours[..., 4:])]
    return [(theirs, ours)]


def _of_summaries(theirs: np.ndarray, ours: np.ndarray) -> float:
    norm = np.sqrt(theirs[1:2]) if theirs[1] > 0 else theirs[1:2]
    of_sum = _relative(theirs[:1], ours[:1], norm)
    return max(of_sum, _relative(theirs[1:2], ours[1:2]), _relative(theirs[2:], ours[2:]))


def _relative(theirs: np.ndarray, ours: np.ndarray, *scales: np.ndarray) -> float:
    if not theirs.size:
        return 0.0
    difference = float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max())
    scale = max(float(np.abs(array.astype(np.float64)).max()) for array in (theirs, *scales))
    if difference == 0:
        return 0.0
    error = difference / scale if scale > 0 else np.inf
    return error if np.isfinite(error) else np.inf


def _finite(error: float) -> tuple[float, str]:
    return error, "" if np.isfinite(error) else "0 or not finite there, another number here"


def _share(different: np.ndarray) -> float:
    return float(different.mean()) if different.size else 0.0
