"""What a command of `ddf` is and gives."""

from typing import Any, NamedTuple, Protocol


class Result(NamedTuple):
    """What a command found."""

    document: Any  # what --json prints
    text: str  # what people read instead
    status: int = 0  # the process's exit status


class Command(Protocol):
    """A frozen dataclass whose fields are a command's arguments and whose docstring is its help."""

    @property
    def json(self) -> bool:
        """Whether the document is asked for."""
        ...

    def run(self) -> Result:
        """Does it. Modules that are slow to import are imported here, so that `--help` does not wait for them."""
        ...
