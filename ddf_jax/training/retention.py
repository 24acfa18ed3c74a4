"""Which checkpoints of a run remain: the newest, one of each interval, and the best."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from ddf_jax.training.tasks import EMA, Task


class Score(NamedTuple):
    """An entry of a record's `evaluation` by which checkpoints are compared."""

    name: str
    higher_is_better: bool

    @classmethod
    def of(cls, task: Task, *, averaged: bool = False) -> "Score":
        """The task's metric in evaluation, of the averaged weights or of the last."""
        return cls(f"{EMA if averaged else ''}test_{task.metric}", task.higher_is_better)


@dataclasses.dataclass(frozen=True)
class Retention:
    """Which checkpoints remain after a save: those for which any of these holds.

    Args:
        newest: it is one of so many of the newest.
        every: it is the first of an interval of so many steps (0: there are none).
        best: it is one of so many with the best score, evaluated at its very step.
        score: what is compared.
    """

    newest: int = 1
    every: float = 0.0
    best: int = 0
    score: Score | None = None

    def kept(self, scores: Mapping[int, float | None]) -> set[int]:
        """The steps of the checkpoints to keep, of all whose scores are given.

        >>> retention = Retention(newest=1, every=10, best=1, score=Score("test_rmse", higher_is_better=False))
        >>> sorted(retention.kept({4: 0.3, 12: 0.5, 18: 0.4, 21: None}))
        [4, 12, 21]
        """
        steps = sorted(scores)
        first = {int(step // self.every): step for step in reversed(steps)} if self.every else {}
        best = from_best(scores, self.score) if self.score else []
        return {*steps[-self.newest :], *best[: self.best], *(step for index, step in first.items() if index)}


def from_best(scores: Mapping[int, float | None], score: Score) -> list[int]:
    """The steps that have a score, the best first, of equals the latest."""
    sign = 1 if score.higher_is_better else -1
    known = [(sign * value, step) for step, value in scores.items() if value is not None]
    return [step for _, step in sorted(known, reverse=True)]
