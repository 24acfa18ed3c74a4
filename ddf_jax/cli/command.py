"""The protocol of a command of `ddf`, and its result."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import tyro

from ddf_jax.errors import UserError

RecipeFile = Annotated[
    Path | None,
    tyro.conf.arg(
        name="recipe",
        metavar="FILE",
        help="The Python file to execute, where one that has moved registers the run's model; default: the file of "
        "the training.",
    ),
]
"""The `--recipe` of a command that reads a run."""

Checkpoint = Annotated[
    str,
    tyro.conf.arg(
        name="checkpoint",
        metavar="STEP",
        help="A step, newest (readable) or best (by its test score); with :ema the averaged weights, as in best:ema.",
    ),
]
"""The `--checkpoint` of a command that reads a run."""


class CommandResult(NamedTuple):
    """The output of a command in its two forms."""

    document: Any  # what --json prints
    text: str  # what people read instead
    status: int = 0  # the process's exit status


class Command(Protocol):
    """A frozen dataclass whose fields are a command's arguments and whose docstring is its help."""

    @property
    def json(self) -> bool:
        """Whether to print the document."""
        ...

    def run(self) -> CommandResult:
        """Runs it. Modules that are slow to import are imported here, so that `--help` does not wait for them."""
        ...


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns a `NotImplementedError` of the kernels, whose message states what is missing, into one for the user."""
    try:
        yield
    except NotImplementedError as error:
        raise UserError(str(error)) from error
