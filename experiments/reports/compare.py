"""Compares finished runs in one table: `python -m experiments.compare runs/digits runs/digits_plain`.

With `--write DIR` the row of each run is also written to DIR/NAME.json, and the table to DIR/zoo.md.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ddf_jax.analysis.counting import complexity
from ddf_jax.files import write_atomically, write_json
from ddf_jax.training.run import Run, load_run

COLUMNS = {
    "run": "{name}",
    "model": "{model}",
    "parameters": "{parameters:,}",
    "core MACs": "{macs_core:,}",
    "mmcv MACs": "{macs_mmcv:,}",
    "test accuracy": "{test_accuracy:.2%}",
    "steps": "{steps:,}",
    "seconds": "{seconds:.0f}",
    "images/s": "{images_per_second:,.0f}",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--write", type=Path, metavar="DIR", help="folder to also write the rows and the table to")
    chosen = parser.parse_args(arguments)
    try:
        rows = [row_of(folder) for folder in chosen.runs]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    lines = table(rows)
    if chosen.write is not None:
        chosen.write.mkdir(parents=True, exist_ok=True)
        for row in rows:
            write_json(chosen.write / f"{row['name']}.json", row)
        write_atomically(chosen.write / "zoo.md", _page(rows, lines))
    print("\n".join(lines))
    return 0


def finished_run(folder: Path) -> Run:
    """A run that has its `summary.json`.

    Raises:
      ValueError: the folder holds no finished run.
    """
    path = folder / "summary.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no finished run: {path} is missing. `ddf train` makes it.")
    return load_run(folder)


def row_of(folder: Path) -> dict[str, Any]:
    """A run's summary, its date, and the multiply-accumulates of its network for one image.

    Raises:
      ValueError: the folder holds no finished run.
    """
    run, path = finished_run(folder), folder / "summary.json"
    image = jax.ShapeDtypeStruct((1, run.info.image_size, run.info.image_size, run.info.channels), jnp.float32)
    counts = complexity(run.model(), image)
    ended = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    macs = {"macs_core": counts.macs_core, "macs_mmcv": counts.macs_mmcv}
    return {**json.loads(path.read_text()), **macs, "date": f"{ended:%Y-%m-%d}"}


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as lines of a Markdown table with aligned columns."""
    cells = [list(COLUMNS), *([form.format(**row) for form in COLUMNS.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    # Names are aligned left, numbers right.
    aligned = [
        [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in cells
    ]
    rule = ["-" * width if column < 2 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return [f"| {' | '.join(line)} |" for line in (aligned[0], rule, *aligned[1:])]


def _page(rows: Sequence[dict[str, Any]], lines: Sequence[str]) -> str:
    where = sorted({f"{row['devices']} × {row['device']}, JAX {row['versions']['jax']}, {row['date']}" for row in rows})
    about = (
        "Each operator's small network on 1,437 images of 8×8 pixels, tested on 360 others: one of these is 0.28 %. "
        "Multiply-accumulates (MACs) are those of one image, in the two ways that `ddf models --help` explains. "
        "Images per second are those of training steps, forward and backward."
    )
    return "\n".join(["# The zoo on digits", "", f"`make zoo` on {'; '.join(where)}.", "", about, "", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
