"""Examples whose arrays have several shapes: groups of one shape each, and batches of one group each."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ddf_jax.data.sources import Examples, Source


class Group(NamedTuple):
    """The examples of one shape, and their places in the source; None for all of it."""

    examples: Examples
    places: np.ndarray | None

    def of(self, source: Source) -> Any:
        """The source that has these examples alone."""
        return source if self.places is None else _Places(source, self.places)


@runtime_checkable
class Grouped(Protocol):
    """A kind of examples (`Examples`) that may come in one or two groups."""

    def groups(self, source: Any) -> Sequence[Group]:
        """The groups that have an example, which share no example and together are the source."""
        ...


def groups_of(examples: Examples, source: Source) -> Sequence[Group]:
    """The groups of a source; one where the examples have one shape."""
    return examples.groups(source) if isinstance(examples, Grouped) else [Group(examples, None)]


class InTurns:
    """Two endless datasets, a batch of the one or of the other at a time, spread evenly by the sizes of the groups.

    With sizes a and b, ⌊n·a/(a + b)⌋ of the first n batches are of the first dataset, so that an epoch has each example
    of both groups once, but for the batches that run over its end. Which dataset batch n is of, and which part of it,
    depends on n alone: every process, from any step on, takes the same.

    Args:
        datasets: the examples of each group without end.
        sizes: of the groups.
        batch_size: B; the examples n·B to (n + 1)·B - 1 are batch n.
    """

    def __init__(self, datasets: Sequence[Any], sizes: Sequence[int], batch_size: int):
        self._datasets, self._sizes, self._batch_size = datasets, sizes, batch_size

    def __len__(self) -> int:
        return len(self._datasets[0])

    def __getitem__(self, index: int) -> Any:
        batch, row = divmod(index, self._batch_size)
        group, number = self._turn(batch)
        return self._datasets[group][number * self._batch_size + row]

    def _turn(self, batch: int) -> tuple[int, int]:
        """The dataset that a batch is of, and its number among that dataset's batches."""
        first, whole = self._sizes[0], sum(self._sizes)
        before = batch * first // whole
        return (0, before) if (batch + 1) * first // whole > before else (1, batch - before)


class _Places:
    """Some examples of a source."""

    def __init__(self, source: Source, places: np.ndarray):
        self._source, self._places = source, places

    def describe(self, index: int) -> str:
        return self._source.describe(int(self._places[index]))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        return self._source[int(self._places[index])]
