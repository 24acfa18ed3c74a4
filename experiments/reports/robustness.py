"""Compares classifiers on corrupted pictures: `python -m experiments.robustness runs/furniture_resnet runs/...`.

The first run is the baseline. Scores finished runs on one dataset under the corruptions of ImageNet-C, writes rows, a
table by family and a table of all corruptions, and draws the gains over the baseline as Figure 3 of Hu et al.,
"Bi-volution: A Static and Dynamic Coupled Filter", 2022, does. A sheet shows one picture under each corruption.
"""

import argparse
import datetime
import functools
import io
import json
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ddf_jax.data.corruptions import FAMILIES, SEVERITIES, corrupt
from ddf_jax.data.sources import open_source
from ddf_jax.data.transforms import ResizeAndCenterCrop
from ddf_jax.files import write_atomically
from ddf_jax.training.drawing.palette import THINGS
from ddf_jax.training.reporting import log_info
from ddf_jax.training.robustness import robustness
from ddf_jax.training.run import Run
from ddf_jax.training.tasks.classification import Classification
from experiments.reports.compare import finished_run
from experiments.reports.results import RESULTS, markdown_table, write_results

FOLDER = RESULTS / "robustness"
PICTURES = Path(__file__).parents[2] / "docs" / "images"
SHOWN_SEVERITY = 3

_FACTS = ("parameters", "steps", "epochs", "batch_size", "seconds", "images_per_second")
_HATCHES = ("", "//", "..", "xx", "\\\\", "oo")  # for eyes and printers that see no colours
_COLOURS = (THINGS[4], THINGS[0], THINGS[2], THINGS[6], THINGS[1], THINGS[5])

Row = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.robustness", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs, the baseline first")
    parser.add_argument("--severities", nargs="+", type=int, default=SEVERITIES, choices=SEVERITIES, metavar="1..5")
    parser.add_argument("--processes", type=int, default=1, help="runs that are scored at a time (default: 1)")
    chosen = parser.parse_args(arguments)
    try:
        runs = {folder: finished_run(folder) for folder in chosen.runs}
        found = {run.recipe.name: run.recipe.data.folder or run.recipe.data.dataset for run in runs.values()}
        tasks = {type(run.recipe.task) for run in runs.values()}
        if len(runs) < 2 or len(set(found.values())) > 1 or tasks != {Classification}:
            raise ValueError(f"There must be two runs of classification or more, on one dataset, got {found}.")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    score = functools.partial(row_of, severities=chosen.severities)
    if chosen.processes > 1:
        with ProcessPoolExecutor(chosen.processes, mp_context=multiprocessing.get_context("spawn")) as processes:
            rows = list(processes.map(score, runs))
    else:
        rows = list(map(score, runs))
    PICTURES.mkdir(parents=True, exist_ok=True)
    name = rows[0]["dataset"]
    write_atomically(PICTURES / f"robustness_{name}.png", plot(rows))
    write_atomically(PICTURES / f"corruptions_{name}.png", sheet(next(iter(runs.values()))))
    write_results(FOLDER, name, rows, page(rows))
    return 0


def row_of(folder: Path, severities: Sequence[int]) -> dict[str, Any]:
    """A run's errors on corrupted pictures, and how the run came about."""
    run = finished_run(folder)
    summary = json.loads((folder / "summary.json").read_text())
    log_info(f"{run.recipe.name}: corruptions")
    return {
        **robustness(run, severities=severities, report=log_info),
        "options": dict(run.recipe.model.options),
        "training_seed": run.recipe.seed,
        **{name: summary[name] for name in _FACTS},
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
    }


def page(rows: Sequence[Row]) -> str:
    """The rows as two Markdown tables, errors in percent."""
    first = rows[0]
    levels = ", ".join(map(str, first["severities"]))
    about = (
        f"{first['test_examples']} test images, top-1 errors in percent, each the mean over the severities {levels}; "
        f"{first['devices']} × {first['device']}, JAX {first['versions']['jax']}, {first['date']}. One run of each "
        f"network, trained without corruptions."
    )
    heads = ["run", "clean", *first["families"], "mean corruption error", "parameters", "steps × batch", "seconds"]
    families = [
        [
            row["name"],
            _percent(1 - row["test_accuracy"]),
            *map(_percent, row["families"].values()),
            _percent(row["mean_corruption_error"]),
            f"{row['parameters']:,}",
            f"{row['steps']:,} × {row['batch_size']}",
            f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]
    single = [
        [
            name,
            first["corruptions"][name]["family"],
            *(_percent(row["corruptions"][name]["mean_error"]) for row in rows),
        ]
        for name in first["corruptions"]
    ]
    return "\n".join(
        [
            f"# Robustness on {first['dataset']}",
            "",
            about,
            "",
            markdown_table(heads, families),
            markdown_table(["corruption", "family", *(row["name"] for row in rows)], single),
        ]
    )


def plot(rows: Sequence[Row]) -> bytes:
    """Points of accuracy that each network gains over the first, for every corruption and every family. PNG."""
    baseline, *others = rows
    figure = Figure(figsize=(13, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 4, height_ratios=(1.6, 1), width_ratios=[len(names) for names in FAMILIES.values()])
    shared: Axes | None = None
    for column, (family, names) in enumerate(FAMILIES.items()):
        shared = axes = figure.add_subplot(grid[0, column], sharey=shared)
        gains = [_gains(row, baseline, "corruptions", names) for row in others]
        _bars(axes, [name.replace("_", "\n") for name in names], others, gains)
        axes.set_title(family, fontweight="bold")
        axes.tick_params("y", labelleft=column == 0)
    figure.axes[0].set_ylabel(f"gain over {baseline['name']},\npoints of accuracy")
    means = figure.add_subplot(grid[1, :])
    heads = ["clean", *baseline["families"], "mean of all"]
    summaries = [
        [
            100 * (row["test_accuracy"] - baseline["test_accuracy"]),
            *_gains(row, baseline, "families", baseline["families"]),
            100 * (baseline["mean_corruption_error"] - row["mean_corruption_error"]),
        ]
        for row in others
    ]
    _bars(means, heads, others, summaries, numbers=True)
    means.set_ylabel("gain, points")
    means.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=len(others), frameon=False, fontsize=11)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def sheet(run: Run) -> bytes:
    """The first test picture of a run's data under each corruption, a family a row. PNG."""
    recipe = run.recipe
    example = open_source(recipe.data, recipe.task.examples(), "eval")[0]
    assert example is not None
    image = ResizeAndCenterCrop(recipe.data.image_size).map(example)["image"]
    columns = 1 + max(map(len, FAMILIES.values()))
    figure = Figure(figsize=(1.7 * columns, 1.95 * len(FAMILIES)), layout="constrained")
    FigureCanvasAgg(figure)
    for row, names in zip(figure.subplots(len(FAMILIES), columns), FAMILIES.values(), strict=True):
        pictures = {"as it is": image, **{name: corrupt(image, name, SHOWN_SEVERITY) for name in names}}
        for axes in row:
            axes.set_axis_off()
        for axes, (name, picture) in zip(row, pictures.items(), strict=False):
            axes.imshow(np.squeeze(picture), cmap="grey", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(name.replace("_", " "), fontsize=10)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90)
    return file.getvalue()


def _gains(row: Row, baseline: Row, kind: str, names: Any) -> list[float]:
    """Points of error that are less than the baseline's."""

    def error(of: Row, name: str) -> float:
        return of[kind][name]["mean_error"] if kind == "corruptions" else of[kind][name]

    return [100 * (error(baseline, name) - error(row, name)) for name in names]


def _bars(
    axes: Axes, heads: Sequence[str], rows: Sequence[Row], gains: Sequence[Sequence[float]], *, numbers: bool = False
) -> None:
    """A group of bars for each head, one for each row."""
    width = 0.8 / len(rows)
    for place, (row, values) in enumerate(zip(rows, gains, strict=True)):
        red, green, blue = _COLOURS[place % len(_COLOURS)]
        bars = axes.bar(
            np.arange(len(heads)) + (place - (len(rows) - 1) / 2) * width,
            values,
            width,
            label=row["name"],
            color=(red / 255, green / 255, blue / 255),
            edgecolor="black",
            linewidth=0.6,
            hatch=_HATCHES[place % len(_HATCHES)],
        )
        if numbers:
            axes.bar_label(bars, [f"{value:+.1f}" for value in values], padding=2, fontsize=9)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(heads)), heads, fontsize=9 if numbers else 8)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.margins(y=0.15)


def _percent(error: float) -> str:
    return f"{100 * error:.1f}"
