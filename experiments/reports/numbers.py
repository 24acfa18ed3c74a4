"""Measured numbers of the documentation, each bound to the row that holds it.

In a page a comment behind a number names its row, and one above a table its function in `tables_of_docs`:

    it is 32×<!-- row: operator_cpu.csv median_ms implementation=torch_unfold/xla pass=forward geomean --> as fast

    <!-- table: operator_cpu -->
    | … |

A `row` comment is a file in `experiments/results`, a column (`families.noise` of nested ones), and words:

- `NAME=VALUE` selects rows; what is left must be one row. With `NAME=A/B` the number is the quotient of A's and B's.
- `mean`, `geomean`, `min`, `max`, `sum` or `count` make one number of several rows, or of several quotients.
- `*100`, `/1e3`, `/2**20` change the unit, `1-` takes the number from 1 before that.

The number must be the value, rounded to the digits that it shows. A number with a unit of measurements, or a table of
numbers, without a comment is an error unless `SETTINGS` lists it as something else than a measurement.
"""

import csv
import functools
import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, NamedTuple

from experiments.reports.results import RESULTS

Row = dict[str, Any]

NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
MARK = re.compile(r"<!-- row: (.*?) -->", re.DOTALL)
MARKED = re.compile(NUMBER.pattern + r"[^\d<]{0,40}" + MARK.pattern, re.DOTALL)
CODE_BLOCK = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
CODE, COMMENT, TARGET = re.compile(r"`[^`\n]*`"), re.compile(r"<!--.*?-->", re.DOTALL), re.compile(r"\]\([^)\n]*\)")
TABLE = re.compile(r"<!-- table: (\S+) -->\n+((?:\|.*\n)+)")
UNIT = re.compile(
    r"(?<![\w.×])\d[\d,]*(?:\.\d+)?\s?(?:×(?![\w(])|times\b|%|ms\b|µs\b|s\b|seconds?\b|minutes?\b|hours?\b|images/s\b|/s\b|"
    r"[KMGT]i?B\b|[KMGT]B/s\b|[GT]FLOP|cm\b|points?\b)"
)
CELL = re.compile(r"[*\s]*\d[\d,.]*\s*(?:%|×|/s|\(|,|$)")
COMBINE: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "geomean": statistics.geometric_mean,
    "min": min,
    "max": max,
    "sum": sum,
    "count": len,
}


class Wrong(NamedTuple):
    """A number that no row holds, or a comment that names none."""

    page: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.message}"


class Located(NamedTuple):
    """A row, and the lines of its file that it is in."""

    row: Row
    line: int


@functools.cache
def located_rows(name: str) -> list[Located]:
    """The rows of a file in `experiments/results` (.csv, .jsonl, .json, .txt) with first lines; of `a*.json` all.

    A .txt file is a table whose columns are two spaces apart or more.

    Raises:
        ValueError: there is no such file.
    """
    if "*" in name:
        files = sorted(RESULTS.glob(name))
        return [row for file in files for row in located_rows(file.relative_to(RESULTS).as_posix())]
    path = RESULTS / name
    if not path.is_file():
        raise ValueError(f"there is no experiments/results/{name}")
    text = path.read_text()
    if path.suffix == ".csv":
        reader = csv.DictReader(text.splitlines())
        return [Located(row, reader.line_num) for row in reader]
    if path.suffix == ".jsonl":
        return [Located(json.loads(line), number) for number, line in enumerate(text.splitlines(), 1)]
    if path.suffix == ".txt":
        heads, *lines = (re.split(r"\s{2,}", line.strip()) for line in text.splitlines())
        return [Located(dict(zip(heads, line, strict=True)), number) for number, line in enumerate(lines, 2)]
    document = json.loads(text)
    if isinstance(document, dict):
        return [Located(document, 1)]
    starts = [number for number, line in enumerate(text.splitlines(), 1) if re.match(r" {1,2}\{", line)]
    return [Located(row, line) for row, line in zip(document, starts, strict=True)]


def select(name: str, columns: Mapping[str, str]) -> list[Located]:
    """The rows of a file whose columns have these values, as strings."""
    found = located_rows(name)
    return [located for located in found if all(str(cell(located.row, key)) == columns[key] for key in columns)]


def cell(row: Row, column: str) -> Any:
    """A row's value, `a.b` that of b in a; None where there is none."""
    for part in [column] if column in row else column.split("."):
        row = row.get(part) if isinstance(row, dict) else None  # pyright: ignore[reportAssignmentType]
    return row


def value_of(source: str) -> float:
    """The number that a `row` comment names.

    Raises:
        ValueError: it names no row, or several without a word that makes one number of them.
    """
    name, column, *words = source.split()
    from_one = column.startswith("1-")
    column = column.removeprefix("1-")
    selected = dict(word.split("=", 1) for word in words if "=" in word)
    others = [word for word in words if "=" not in word]
    unit = [word for word in others if word[0] in "*/"]
    combine = [word for word in others if word not in unit]
    if unknown := [word for word in combine if word not in COMBINE]:
        raise ValueError(f"expected NAME=VALUE, a unit such as *100, or one of {', '.join(COMBINE)}, got {unknown[0]}")
    values = _values(name, column, selected)
    if len(values) != 1 and not combine:
        raise ValueError(f"expected one row, got {len(values)}: {source}")
    value = COMBINE[combine[0]](values) if combine and (values or combine == ["count"]) else values[0]
    value = 1 - value if from_one else value
    for word in unit:
        value = value * _factor(word[1:]) if word[0] == "*" else value / _factor(word[1:])
    return value


def _values(name: str, column: str, selected: dict[str, str]) -> list[float]:
    quotient = next((key for key, value in selected.items() if "/" in value and not _is_value(name, key, value)), None)
    if quotient is None:
        found = select(name, selected)
        return [float(value) for row, _ in found if (value := cell(row, column)) not in (None, "")]
    above, below = (_values(name, column, selected | {quotient: value}) for value in selected[quotient].split("/", 1))
    if not above or len(above) != len(below):
        raise ValueError(f"expected as many rows of {quotient}={selected[quotient]}, got {len(above)} and {len(below)}")
    return [a / b for a, b in zip(above, below, strict=True)]


def _is_value(name: str, key: str, value: str) -> bool:
    return any(str(cell(row, key)) == value for row, _ in located_rows(name))


def _factor(text: str) -> float:
    base, power, exponent = text.partition("**")
    return float(base) ** (float(exponent) if power else 1)


def shown_as(value: float, like: str) -> str:
    """The value with the decimals and the separators of a number that is shown.

    >>> shown_as(1234.567, "1,000.0"), shown_as(31.5, "32")
    ('1,234.6', '32')
    """
    decimals = len(like.partition(".")[2])
    rounded = Decimal(str(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    return f"{rounded:,f}" if "," in like else f"{rounded:f}"


def check(page: str, text: str, tables: dict[str, Callable[[], str]]) -> tuple[str, list[Wrong]]:
    """A page with its numbers as the rows have them, and what was wrong with them before.

    Args:
        page: its path in the checkout.
        text: its Markdown.
        tables: what makes the tables that the page's comments name.
    """
    wrong: list[Wrong] = []

    def line(position: int) -> int:
        return text.count("\n", 0, position) + 1

    pieces, end = [], 0
    for mark in MARK.finditer(text):
        before = text[end : mark.start()]
        numbers = list(NUMBER.finditer(before))
        try:
            if not numbers or len(before) - numbers[-1].end() > 40:
                raise ValueError(f"expected a number in front of the comment: {mark[1]}")
            shown = numbers[-1][0]
            held = shown_as(value_of(mark[1]), shown)
            if held != shown:
                wrong.append(Wrong(page, line(mark.start()), f"{shown} is shown, and the row has {held}: {mark[1]}"))
            before = before[: numbers[-1].start()] + held + before[numbers[-1].end() :]
        except (ValueError, KeyError) as error:
            wrong.append(Wrong(page, line(mark.start()), str(error)))
        pieces += [before, mark[0]]
        end = mark.end()
    corrected = "".join(pieces) + text[end:]

    def table(found: re.Match[str]) -> str:
        if found[1] not in tables:
            wrong.append(Wrong(page, line(0), f"there is no table {found[1]}; there are {', '.join(tables)}"))
            return found[0]
        made = tables[found[1]]()
        if made != found[2]:
            wrong.append(Wrong(page, 1 + corrected.count("\n", 0, found.start()), f"not the rows' table: {found[1]}"))
        return found[0].replace(found[2], made)

    corrected = TABLE.sub(table, corrected)
    return corrected, wrong + list(_unmarked(page, text))


def _unmarked(page: str, text: str) -> Iterator[Wrong]:
    """Numbers that look measured and name no row."""

    def blanked(pattern: re.Pattern[str], text: str) -> str:
        return pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)

    for pattern in (TABLE, MARKED, CODE_BLOCK, CODE, COMMENT, TARGET):
        text = blanked(pattern, text)
    for phrase in SETTINGS.get(page, ()):
        words = re.compile(r"\s+".join(map(re.escape, phrase.split())))
        if not words.search(text):
            yield Wrong(page, 1, f"SETTINGS lists {phrase!r}, which the page does not have")
        text = blanked(words, text)
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("|"):
            cells = [cell for cell in line.split("|")[2:] if CELL.match(cell)]
            if cells:
                yield Wrong(page, number, f"a table of numbers without `<!-- table: NAME -->`: {cells[0].strip()}")
                continue
        for found in UNIT.finditer(line):
            yield Wrong(page, number, f"{found[0].strip()!r} names no row")


SETTINGS: dict[str, tuple[str, ...]] = {
    "docs/depth.md": ("by 4× on",),
    "docs/detection.md": ("| 3, 7 |", "in 20 minutes", "of at least 50 %"),
    "docs/input.md": ("takes 1.5 times as long",),
    "docs/kernels.md": ("at the 4.3 TB/s of a copy",),
    "docs/robustness.md": ("12 minutes on two cores", "of chance 80 %", "to about 1.4 points"),
    "docs/serving.md": ("| 413 |", "| 408,", "| 503 |", "| 400, 415 |", "and 99 % within", "(16 MiB)"),
    "docs/several_devices.md": ("The images are 0.14 GiB", "or 1.8 µs, the largest"),
    "docs/resume.md": ("above 64 KiB: size and 16 KiB", "within 6 s", "after 20 s", "within 5 minutes"),
}
"""Per page: phrases with numbers that no row holds as they were not measured: limits, settings, arithmetic, durations
of commands in whole minutes, and facts of a device."""


def pages(root: Path) -> Iterable[Path]:
    """README and the pages of the documentation."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
