"""The files of rows, with the devices, versions and dates that they state."""

from pathlib import Path

from experiments.reports.numbers import located_rows
from experiments.reports.results import RESULTS
from experiments.reports.shown import Value, table


def row_sets() -> str:
    """A line for each file of rows."""
    heads = ["rows", "number", "device", "versions", "date", "load at start"]
    names = (path.relative_to(RESULTS).as_posix() for path in row_files())
    return table(heads, map(_set, names), left=len(heads))


def row_files() -> list[Path]:
    """Files of rows, those of the runs on digits as one; the kernels of a trace are a part of others."""
    paths = [path for ending in ("csv", "json", "jsonl", "txt") for path in RESULTS.rglob(f"*.{ending}")]
    others = [path for path in paths if not path.name.endswith(".kernels.json") and not path.match("digits*.json")]
    return sorted([*others, RESULTS / "digits*.json"])


def _set(name: str) -> list[str]:
    rows = [row for row, _ in located_rows(name)]

    def every(key: str) -> str:
        texts = [
            f"JAX {row[key]['jax']}" if isinstance(row[key], dict) else str(row[key]) for row in rows if row.get(key)
        ]
        return "; ".join(sorted({*texts}))

    number = Value(len(rows), name, (located_rows(name)[0].line,)).show(".0f") if "*" not in name else str(len(rows))
    versions = every("versions") or (f"JAX {every('jax')}" if every("jax") else "")
    return [f"`{name}`", number, every("device"), versions, every("date"), every("load_average")]
