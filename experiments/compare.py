"""Prints finished runs side by side: `python -m experiments.compare runs/digits runs/digits_plain`."""

import json
import sys
from pathlib import Path

COLUMNS = ("run", "model", "parameters", "test accuracy", "steps", "seconds", "images/s")


def main(folders: list[str]) -> int:
    rows: list[tuple[str, ...]] = [COLUMNS]
    for folder in folders:
        path = Path(folder) / "summary.json"
        if not path.is_file():
            print(f"{folder} holds no finished run: {path} is missing. `ddf train` makes it.", file=sys.stderr)
            return 2
        summary = json.loads(path.read_text())
        rows.append(
            (
                Path(folder).name,
                summary["model"],
                f"{summary['parameters']:,}",
                f"{summary['test_accuracy']:.2%}",
                str(summary["steps"]),
                f"{summary['seconds']:.0f}",
                f"{summary['images_per_second']:.0f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
