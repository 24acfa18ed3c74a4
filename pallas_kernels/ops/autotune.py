"""Measures cuts of a kernel around the heuristic's and keeps the fastest that compiles, runs and is right.

`python -m experiments.tune` runs it on a GPU. `config.choose` reads what that writes.
"""

import dataclasses
import itertools
import logging
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pallas_kernels.ops import heuristics
from pallas_kernels.ops.config import BlockConfig, Pass, Problem, check_launch

Measure = Callable[[BlockConfig], float]
"""Seconds of a kernel that is cut so. It raises where that cut cannot run or gives a wrong answer."""


# Multiply-adds written out per program and lane: with more a compilation takes most of a minute.
MOST_TERMS = 2 * heuristics.UNROLLED_TERMS


class Tuning(NamedTuple):
    """What is known of one kernel after its candidates were tried."""

    best: BlockConfig
    seconds: float
    heuristic_seconds: float  # NaN where the heuristic's cut failed
    tried: int
    failed: int


def candidates(problem: Problem, which: Pass) -> Iterator[BlockConfig]:
    """The heuristic's cut first, then those with patches of other sizes and other numbers of threads."""
    first = heuristics.heuristic(problem, which)
    step = problem.spec.stride if which == "input" else 1
    height, width = (problem.height, problem.width) if which == "input" else problem.positions
    seen: set[BlockConfig] = set()
    heights = [1, 2, 4, 7, 8]
    if which == "filters":  # walks down patches of any height
        heights = [math.ceil(height / parts) for parts in (1, 2, 3, 4, 8)]
    terms = first.tap_rows * first.tap_columns * problem.spec.scale**2
    for rows, columns, warps in itertools.product(heights, (1, 2, 4), (1, 2, 4)):
        if which != "filters" and rows * columns * terms > MOST_TERMS:
            continue
        patches = max(1, first.patches * warps // first.warps)
        size = {"rows": step * min(rows, height), "columns": step * min(columns, width)}
        seen.add(dataclasses.replace(first, **size, warps=warps, patches=patches))
    yield first
    yield from sorted(seen - {first}, key=lambda cut: (cut.warps, cut.rows, cut.columns))


def tune(problem: Problem, which: Pass, measure: Measure) -> Tuning:
    """The fastest candidate. One that fails, for whatever reason, is logged and passed over.

    Raises:
      RuntimeError: every candidate failed, the heuristic's among them.
    """
    best, fastest, tried, failed, of_heuristic = None, math.inf, 0, 0, math.nan
    for cut in candidates(problem, which):
        tried += 1
        try:
            check_launch(problem, cut, which)
            seconds = measure(cut)
        except Exception as error:
            failed += 1
            logging.getLogger(__name__).info("%s %s: %s", which, cut, error)
            continue
        of_heuristic = seconds if tried == 1 else of_heuristic
        if seconds < fastest:  # so that a NaN never wins
            best, fastest = cut, seconds
    if best is None:
        raise RuntimeError(f"All {tried} cuts of the {which} kernel failed for {problem}; the log has the reasons.")
    return Tuning(best, fastest, of_heuristic, tried, failed)
