"""What a fault is, and what a kind of faults is."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.bench import Bench


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        what: is done to a run.
        expected: what must come of it.
        check: does it in an empty folder and returns what was seen; an exception is a failure.
    """

    what: str
    expected: str
    check: Callable[[Path], str]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of faults.

    Args:
        count: how many of them a whole run of the driver does.
        draw: the fault with an index.
        prepare: makes what all of them share, in `bench.folder`.
    """

    count: int
    draw: "Callable[[int, Random, Bench], Fault]"
    prepare: "Callable[[Bench], None]" = lambda bench: None
