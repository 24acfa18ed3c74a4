"""Writes the rows of an experiment, and the table made of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ddf_jax.files import write_atomically, write_json

RESULTS = Path(__file__).parents[1] / "results"


def write_results(folder: Path, name: str, rows: Sequence[dict[str, Any]], table: str) -> None:
    """Writes `name`.json and `name`.md, each atomically, and prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", rows)
    write_atomically(folder / f"{name}.md", table)
    print(table)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column is aligned left and the others right.

    >>> print(markdown_table(["name", "ms"], [["a", "1.5"]]), end="")
    | name | ms |
    |---|--:|
    | a | 1.5 |
    """
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    rule = "|---|" + "--:|" * (len(heads) - 1)
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"
