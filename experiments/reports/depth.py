"""Compares joint depth upsampling methods: `python -m experiments.depth runs/joint_depth_4x ...`.

Scores finished runs and classical upsampling on the same test split, and writes rows, a table and pictures. The
parameters of the classical methods are those with the least error on training pictures. With `--also SPLIT` the table
has another column, the scores on another split. With `--recipe NAME` no run is needed: the classical methods are scored
on that recipe's data, by its scale. Rows of networks that were scored before on the same pictures stay in the table.
"""

import argparse
import contextlib
import dataclasses
import datetime
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.depth_transforms import Downsample
from ddf_jax.data.examples import DepthImages
from ddf_jax.data.pipeline import eval_batches
from ddf_jax.data.sources import open_source
from ddf_jax.files import write_atomically
from ddf_jax.recipes import find_recipe
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.run import Run
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling, draw_depth
from ddf_jax.training.workdir import versions
from experiments.reports.compare import finished_run
from experiments.reports.depth_methods import Method, UpsampleFunction, without_training
from experiments.reports.results import RESULTS, markdown_table, write_results

FOLDER = RESULTS / "depth"
PICTURES = Path(__file__).parents[2] / "docs" / "images"
DRAWN = 3
DRAWN_METHODS = ("bicubic", "guided filter", "joint bilateral")  # and the runs


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.depth", description=__doc__)
    parser.add_argument(
        "runs", nargs="*", type=Path, help="folders of finished runs for depth; the error of the first is drawn"
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help="instead of runs, a recipe for depth, whose data and scale count"
    )
    parser.add_argument("--also", metavar="SPLIT", help="another split of that dataset to score all methods on")
    chosen = parser.parse_args(arguments)
    try:
        if bool(chosen.runs) == bool(chosen.recipe):
            raise ValueError("Either runs or `--recipe NAME` must be given.")
        runs = {folder: finished_run(folder) for folder in chosen.runs}
        recipes = [run.recipe for run in runs.values()] or [find_recipe(chosen.recipe)]
        data, scale = _common(recipes)
        models = [run.recipe.model.name for run in runs.values()]
        names = models if len(set(models)) == len(models) else map(str, runs)
        learnt = [_learnt(name, folder, run) for name, (folder, run) in zip(names, runs.items(), strict=True)]
        methods = [*without_training(data, scale), *reversed(learnt)]  # the error of the last is drawn
        rows = [_row(method, data, scale, chosen.also) for method in methods]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    reference = rows[0]["rmse_cm"]
    test = open_source(data, DepthImages(scale), "eval")
    common = {
        "dataset": test.name,
        "scale": scale,
        "test_pictures": len(test),
        "device": jax.devices()[0].device_kind,
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
    }
    if chosen.also:
        also = open_source(_on(data, chosen.also), DepthImages(scale), "eval")
        common |= {"also": chosen.also, "also_pictures": len(also)}
    rows = [{**row, "below_bicubic": 1 - row["rmse_cm"] / reference, **common} for row in rows]
    name = "depth" if scale == 4 else f"depth_{scale}x"
    rows += _networks_before(FOLDER / f"{name}.json", rows)
    rows.sort(key=lambda row: -row["rmse_cm"])
    if runs:
        PICTURES.mkdir(parents=True, exist_ok=True)
        drawn = [method for method in methods if method.name in DRAWN_METHODS or "steps" in method.facts]
        write_atomically(PICTURES / f"joint_depth_{scale}x.png", _picture(drawn, data, scale))
    write_results(FOLDER, name, rows, table(rows))
    return 0


def _common(recipes: Sequence[Recipe]) -> tuple[DataConfig, int]:
    """Data and scale of all recipes."""
    kinds = {(recipe.data.dataset, _scale(recipe)) for recipe in recipes}
    (_, scale), *others = kinds
    if scale is None or others:
        names = ", ".join(f"{recipe.name} ({recipe.data.dataset}, {_scale(recipe)})" for recipe in recipes)
        raise ValueError(f"All runs must be for depth, on one dataset and with one scale, got {names}.")
    return recipes[0].data, scale


def _networks_before(path: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of other networks that the file has, scored on the same pictures."""
    same = ("dataset", "test_pictures", "also", "also_pictures")
    scored = {row["method"] for row in rows}
    before = json.loads(path.read_text()) if path.exists() else []
    return [
        row
        for row in before
        if "steps" in row and row["method"] not in scored and all(row.get(key) == rows[0].get(key) for key in same)
    ]


def _row(method: Method, data: DataConfig, scale: int, also: str | None) -> dict[str, Any]:
    row = {"method": method.name, "rmse_cm": _rmse(method.upsampler, data, scale), **method.facts}
    return row | ({"also_rmse_cm": _rmse(method.upsampler, _on(data, also), scale)} if also else {})


def _scale(recipe: Recipe) -> int | None:
    """None for another task."""
    return recipe.task.scale if isinstance(recipe.task, DepthUpsampling) else None


def _on(data: DataConfig, split: str) -> DataConfig:
    return dataclasses.replace(data, eval_split=split)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown.

    >>> row = {"method": "bicubic", "rmse_cm": 20.0, "below_bicubic": 0.0, "scale": 4, "dataset": "rooms"}
    >>> where = {"test_pictures": 100, "device": "cpu", "date": "2026-11-21", "versions": {"jax": "0.10.2"}}
    >>> print(table([row | where]).splitlines()[-1])
    | bicubic | 20.00 | 0 % |  |  |  |
    """
    first = rows[0]
    also = [f"RMSE on {first['also_pictures']} of {first['also']} (cm)"] if "also" in first else []
    heads = [
        "method",
        "RMSE (cm)",
        "relative reduction of RMSE against bicubic",
        *also,
        "parameters",
        "steps",
        "seconds",
    ]
    lines = [
        f"# Joint depth upsampling by {first['scale']} on {first['dataset']}",
        "",
        f"{first['test_pictures']} test pictures; {_distinct(rows)}.",
        "",
    ]
    cells = []
    for row in rows:
        name = f"{row['method']} ({row['setting']})" if row.get("setting") else row["method"]
        values = [name, f"{row['rmse_cm']:.2f}", f"{row['below_bicubic']:.0%}".replace("%", " %")]
        values += [f"{row['also_rmse_cm']:.2f}"] if also else []
        values += [f"{row['parameters']:,}", str(row["steps"]), f"{row['seconds']:.0f}"] if "steps" in row else [""] * 3
        cells.append(values)
    return "\n".join(lines) + "\n" + markdown_table(heads, cells)


def _distinct(rows: Sequence[dict[str, Any]]) -> str:
    """Where and when the rows were measured."""
    places = {f"{row['device']}, JAX {row['versions']['jax']}, {row['date']}": None for row in rows}
    return "; ".join(sorted(places))


def _learnt(name: str, folder: Path, run: Run) -> Method:
    model, summary = run.model(), json.loads((folder / "summary.json").read_text())
    facts = {fact: summary[fact] for fact in ("parameters", "steps", "seconds", "images_per_second")}
    facts |= {"model": run.recipe.model.name, "options": run.recipe.model.options}
    return Method(name, jax.jit(lambda low, image: model(image, low)), facts)


def _rmse(upsampler: UpsampleFunction, data: DataConfig, scale: int) -> float:
    """Over all measured pixels of the evaluation split, in centimetres."""
    squares, pixels = 0.0, 0
    with contextlib.closing(eval_batches(data, DepthImages(scale), batch_size=10)) as batches:
        for batch in batches:
            measured = (batch["depth"] > 0) & batch["mask"][:, None, None, None]
            predicted = np.asarray(upsampler(jnp.asarray(batch["low"]), jnp.asarray(batch["image"])), np.float64)
            squares += float(np.square(predicted - batch["depth"])[measured].sum())
            pixels += int(measured.sum())
    return 100.0 * (squares / pixels) ** 0.5


def _picture(methods: Sequence[Method], data: DataConfig, scale: int) -> bytes:
    """A few test pictures and the result of each method."""
    source, downsample = open_source(data, DepthImages(scale), "eval"), Downsample(scale)
    chosen = np.linspace(0, len(source) - 1, DRAWN).astype(int).tolist()
    examples = [downsample.map(source[index] or {}) for index in chosen]
    batch = {name: np.stack([example[name] for example in examples]) for name in ("image", "low", "depth")}
    low, image = jnp.asarray(batch["low"]), jnp.asarray(batch["image"])
    return _small(draw_depth(batch, {method.name: np.asarray(method.upsampler(low, image)) for method in methods}))


def _small(png: bytes) -> bytes:
    """The picture with 256 colours, for a repository."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
