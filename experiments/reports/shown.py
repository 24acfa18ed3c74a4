"""Numbers of rows as text that knows its rows: `[1.35](row:operator_cpu.csv:2)` is a link to line 2 of the file.

A page resolves these links (`resolve`) or drops them (`plain`).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from experiments.reports.numbers import cell, select

LINK = re.compile(r"\[([^\]]*)\]\(row:([^:)]+):([\d,]+)\)")


class Value(NamedTuple):
    """A number and the lines of a file that it comes from."""

    number: float
    file: str
    lines: tuple[int, ...]

    def __truediv__(self, other: "Value | float") -> "Value":
        if isinstance(other, Value):
            return Value(self.number / other.number, self.file, self.lines + other.lines)
        return Value(self.number / other, self.file, self.lines)

    def __mul__(self, factor: float) -> "Value":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Value(self.number * factor, self.file, self.lines)

    def show(self, form: str | Callable[[float], str] = "", unit: str = "") -> str:
        """The number in a format of its own or that of `short`, with a unit."""
        text = form(self.number) if callable(form) else format(self.number, form) if form else short(self.number)
        return f"[{text}{unit}](row:{self.file}:{','.join(map(str, self.lines))})"


def value(file: str, column: str, **selected: str) -> Value | None:
    """The number of the only row that is selected; None where no row has it.

    Raises:
        ValueError: several rows have it.
    """
    found = [located for located in select(file, selected) if cell(located.row, column) not in (None, "")]
    if len(found) > 1:
        raise ValueError(
            f"expected one row of {file} with {selected}, got the lines {[located.line for located in found]}"
        )
    return Value(float(cell(found[0].row, column)), file, (found[0].line,)) if found else None


def need(file: str, column: str, **selected: str) -> Value:
    """`value`, where the row must be there.

    Raises:
        ValueError: there is no such row.
    """
    found = value(file, column, **selected)
    if found is None:
        raise ValueError(f"no row of experiments/results/{file} has {column} and {selected}")
    return found


def short(number: float) -> str:
    """Three digits.

    >>> [short(number) for number in (0.346, 7.94, 80.76, 545.3, 4486.1)]
    ['0.35', '7.94', '80.8', '545', '4486']
    """
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f}"


def ratio(number: float) -> str:
    """Two digits.

    >>> [ratio(number) for number in (0.957, 4.69, 59.8)]
    ['0.96×', '4.7×', '60×']
    """
    return f"{number:.{2 if number < 1 else 1 if number < 10 else 0}f}×"


def table(heads: Sequence[str], rows: Iterable[Sequence[str | None]], left: int = 1) -> str:
    """A Markdown table; empty cells for None.

    Args:
        heads: of the columns.
        rows: of cells.
        left: so many columns are aligned left, the others right.
    """
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * left + "--:|" * (len(heads) - left)]
    lines += ["| " + " | ".join(cell or "" for cell in cells) + " |" for cells in rows]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """The text without links to rows.

    >>> plain("it takes [1.35 ms](row:operator_cpu.csv:2)")
    'it takes 1.35 ms'
    """
    return LINK.sub(r"\1", text)
