"""Where the rows of an experiment and the table made of them go."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddf_jax.files import write_atomically, write_json


def write_page(folder: Path, name: str, rows: Sequence[dict[str, Any]], table: str) -> None:
    """Writes `name`.json and `name`.md, each whole or not at all, and prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", rows)
    write_atomically(folder / f"{name}.md", table)
    print(table)
