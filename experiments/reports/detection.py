"""Compares detectors: `python -m experiments.detection runs/rooms_mask_rcnn runs/rooms_mask_rcnn_plain ...`.

Collects the scores of finished runs on one dataset into rows and a table, and draws what they find in the same images.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddf_jax.data.decode import encode_png
from ddf_jax.data.sources import open_source
from ddf_jax.files import write_atomically
from ddf_jax.training.detect import ImageObjects, detect
from ddf_jax.training.drawing.objects import draw_objects
from ddf_jax.training.drawing.segments import draw_segments
from ddf_jax.training.run import Run
from ddf_jax.training.tasks.detection import Detection
from experiments.reports.compare import finished_run
from experiments.reports.results import RESULTS, markdown_table, write_results

FOLDER = RESULTS / "detection"
PICTURES = Path(__file__).parents[2] / "docs" / "images"
DRAWN = 3
"""Images of the picture, one a row."""
SCORE = 0.5
"""The least of a drawn object."""

SCORES = {
    "box AP": "test_box_ap",
    "box AP50": "test_box_ap50",
    "mask AP": "test_mask_ap",
    "mask AP50": "test_mask_ap50",
    "PQ": "test_pq",
    "PQ things": "test_pq_things",
    "PQ stuff": "test_pq_stuff",
}
_FACTS = ("parameters", "steps", "epochs", "batch_size", "seconds", "images_per_second")
_WHERE = ("device", "devices", "versions")
_GAP = 8  # pixels between pictures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.detection", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs, in the order of the picture")
    chosen = parser.parse_args(arguments)
    try:
        runs = {folder: finished_run(folder) for folder in chosen.runs}
        kinds = {(type(run.recipe.task), run.recipe.data.dataset, run.recipe.data.folder) for run in runs.values()}
        if len({kind[1:] for kind in kinds}) > 1 or not all(issubclass(kind[0], Detection) for kind in kinds):
            found = ", ".join(
                f"{run.recipe.name} ({run.recipe.data.folder or run.recipe.data.dataset})" for run in runs.values()
            )
            raise ValueError(f"All runs must be of detection or panoptic segmentation on one dataset, got {found}.")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    rows = [row_of(folder, run) for folder, run in runs.items()]
    PICTURES.mkdir(parents=True, exist_ok=True)
    write_atomically(PICTURES / f"{rows[0]['dataset']}.png", picture(list(runs.values())))
    write_results(FOLDER, rows[0]["dataset"], rows, table(rows))
    return 0


def row_of(folder: Path, run: Run) -> dict[str, Any]:
    """A run's scores, where it has them, and how they came about."""
    path, recipe = folder / "summary.json", run.recipe
    summary = json.loads(path.read_text())
    ended = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    return {
        "run": recipe.name,
        "model": recipe.model.name,
        "options": dict(recipe.model.options),
        "dataset": summary["dataset"],
        "test_images": summary["test_examples"],
        "seed": recipe.seed,
        **{name: summary[name] for name in SCORES.values() if name in summary},
        **{name: summary[name] for name in (*_FACTS, *_WHERE)},
        "date": f"{ended:%Y-%m-%d}",
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, scores in percent.

    >>> row = {"run": "rooms", "parameters": 1000, "seed": 0, "steps": 9, "batch_size": 8, "seconds": 60.2}
    >>> where = {"dataset": "rooms_panoptic", "test_images": 100, "device": "cpu", "devices": 2, "date": "2026-11-28"}
    >>> scores = {"test_box_ap": 0.5, "versions": {"jax": "0.10.2"}}
    >>> print(table([row | where | scores]).splitlines()[-1])
    | rooms | 50.0 |  |  |  |  |  |  | 1,000 | 0 | 9 × 8 | 60 |
    """
    first = rows[0]
    lines = [
        f"# Detection on {first['dataset']}",
        "",
        f"{first['test_images']} test images, scores in percent; {first['devices']} × {first['device']}, "
        f"JAX {first['versions']['jax']}, {first['date']}. Parameters start at random.",
        "",
    ]
    heads = ["run", *SCORES, "parameters", "seed", "steps × batch", "seconds"]
    cells = []
    for row in rows:
        scores = [_percent(row.get(name)) for name in SCORES.values()]
        steps = f"{row['steps']:,} × {row['batch_size']}"
        cells.append([row["run"], *scores, f"{row['parameters']:,}", str(row["seed"]), steps, f"{row['seconds']:.0f}"])
    return "\n".join(lines) + "\n" + markdown_table(heads, cells)


def picture(runs: Sequence[Run]) -> bytes:
    """A few test images: the image, what is true, and what each run finds. PNG."""
    first = runs[0]
    source = open_source(first.recipe.data, first.recipe.task.examples(), "eval")
    chosen = np.linspace(0, len(source) - 1, DRAWN).astype(int).tolist()
    images = [(source[index] or {})["image"] for index in chosen]
    names = (*first.info.class_names, *first.info.stuff_names)
    columns = [[_true(source, index, image, names) for index, image in zip(chosen, images, strict=True)]]
    for run in runs:
        columns.append([_drawn(found.above(SCORE), names, run.info.num_classes) for found in detect(run, images)])
    return encode_png(_sheet(columns)).getvalue()


def _true(source: Any, index: int, image: np.ndarray, names: Sequence[str]) -> np.ndarray:
    _, truth = source.truth(index)
    return draw_objects(image, truth.boxes, truth.labels, names, masks=truth.masks or None)


def _drawn(found: ImageObjects, names: Sequence[str], num_things: int) -> np.ndarray:
    if found.panoptic is not None:
        return draw_segments(found.image, found.panoptic, names, num_things)
    return draw_objects(found.image, found.boxes, found.labels, names, scores=found.scores, masks=found.masks)


def _sheet(columns: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Pictures of one size side by side, on white."""
    rows = [np.concatenate([_framed(column[row]) for column in columns], axis=1) for row in range(len(columns[0]))]
    return np.concatenate(rows)[_GAP:, _GAP:]


def _framed(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((_GAP, 0), (_GAP, 0), (0, 0)), constant_values=255)


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.1f}"
