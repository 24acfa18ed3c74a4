"""Compares joint depth upsampling methods: `python -m experiments.depth runs/joint_depth_4x ...`.

Scores finished runs and classical upsampling on the same test split, and writes rows, a table and pictures. The
parameters of the guided filter and of joint bilateral upsampling are those with the least error on training pictures.
With `--also SPLIT` the table has another column, the scores on another split.
"""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from ddf_jax.functional import bicubic_upsample, guided_upsample, joint_bilateral_upsample
from ddf_jax.training.run import Run
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling, draw_depth
from ddf_jax.training.workdir import versions
from experiments.reports.compare import finished_run
from experiments.reports.results import RESULTS, markdown_table, write_results

FOLDER = RESULTS / "depth"
PICTURES = Path(__file__).parents[2] / "docs" / "images"
TUNING_PICTURES = 24
DRAWN = 3

GRIDS: dict[str, tuple[Callable[..., jax.Array], dict[str, tuple[Any, ...]]]] = {
    "guided filter": (guided_upsample, {"radius": (1, 2, 4, 8), "epsilon": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)}),
    "joint bilateral": (
        joint_bilateral_upsample,
        {"radius": (1, 2, 3), "sigma_space": (0.4, 0.6, 0.8), "sigma_colour": (0.03, 0.045, 0.06, 0.1)},
    ),
}

UpsampleFunction = Callable[[jax.Array, jax.Array], jax.Array]
"""(low-resolution depth, image) to depth, batched."""


class Method(NamedTuple):
    """A way to upsample depth to the resolution of its image."""

    name: str
    upsampler: UpsampleFunction
    facts: dict[str, Any]  # other keys of its row


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.depth", description=__doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, help="folders of finished runs for depth; the error of the first is drawn"
    )
    parser.add_argument("--also", metavar="SPLIT", help="another split of that dataset to score all methods on")
    chosen = parser.parse_args(arguments)
    try:
        runs = {folder: finished_run(folder) for folder in chosen.runs}
        first = next(iter(runs.values()))
        scale = _scale(first)
        kinds = {(run.recipe.data.dataset, _scale(run)) for run in runs.values()}
        if scale is None or len(kinds) > 1:
            names = ", ".join(f"{run.recipe.name} ({run.recipe.data.dataset}, {_scale(run)})" for run in runs.values())
            raise ValueError(f"All runs must be for depth, on one dataset and with one scale, got {names}.")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    models = [run.recipe.model.name for run in runs.values()]
    names = models if len(set(models)) == len(models) else map(str, runs)
    learnt = [_learnt(name, folder, run) for name, (folder, run) in zip(names, runs.items(), strict=True)]
    methods = [*_without_training(first, scale), *reversed(learnt)]  # the error of the last is drawn
    try:
        rows = [_row(method, first.recipe.data, scale, chosen.also) for method in methods]
    except ValueError as error:  # no such split
        print(error, file=sys.stderr)
        return 2
    reference = rows[0]["rmse_cm"]
    common = {
        "dataset": open_source(first.recipe.data, DepthImages(scale), "eval").name,
        "scale": scale,
        "test_pictures": first.info.eval_size,
        "device": jax.devices()[0].device_kind,
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
    }
    if chosen.also:
        also = open_source(_on(first.recipe.data, chosen.also), DepthImages(scale), "eval")
        common |= {"also": chosen.also, "also_pictures": len(also)}
    rows = [{**row, "below_bicubic": 1 - row["rmse_cm"] / reference, **common} for row in rows]
    rows.sort(key=lambda row: -row["rmse_cm"])
    PICTURES.mkdir(parents=True, exist_ok=True)
    write_atomically(PICTURES / f"joint_depth_{scale}x.png", _picture(methods, first.recipe.data, scale))
    write_results(FOLDER, "depth", rows, table(rows))
    return 0


def _row(method: Method, data: DataConfig, scale: int, also: str | None) -> dict[str, Any]:
    row = {"method": method.name, "rmse_cm": _rmse(method.upsampler, data, scale), **method.facts}
    return row | ({"also_rmse_cm": _rmse(method.upsampler, _on(data, also), scale)} if also else {})


def _scale(run: Run) -> int | None:
    """None for a run of another task."""
    return run.recipe.task.scale if isinstance(run.recipe.task, DepthUpsampling) else None


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
        f"{first['test_pictures']} test pictures; {first['device']}, JAX {first['versions']['jax']}, {first['date']}.",
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


def _learnt(name: str, folder: Path, run: Run) -> Method:
    model, summary = run.model(), json.loads((folder / "summary.json").read_text())
    facts = {fact: summary[fact] for fact in ("parameters", "steps", "seconds", "images_per_second")}
    facts |= {"model": run.recipe.model.name, "options": run.recipe.model.options}
    return Method(name, jax.jit(lambda low, image: model(image, low)), facts)


def _without_training(run: Run, scale: int) -> Iterator[Method]:
    """Bicubic first."""

    @jax.jit
    def bicubic(low: jax.Array, image: jax.Array) -> jax.Array:
        return bicubic_upsample(low, height=image.shape[1], width=image.shape[2], scale=scale)

    yield Method("bicubic", bicubic, {})
    batch = _training_pictures(run, scale)
    for name, (function, grid) in GRIDS.items():
        best, setting = min(
            ((_error(batch, _with(function, scale, setting)), setting) for setting in _settings(grid)),
            key=lambda pair: pair[0],
        )
        words = ", ".join(f"{key} {value:g}" for key, value in setting.items())
        yield Method(name, _with(function, scale, setting), {"setting": words, "tuning_rmse_cm": best})


def _settings(grid: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _with(function: Callable[..., jax.Array], scale: int, setting: Mapping[str, Any]) -> UpsampleFunction:
    """The function with a setting; each radius is compiled once."""
    program = _compiled(function, scale, setting["radius"])
    numbers = {name: jnp.float32(value) for name, value in setting.items() if name != "radius"}
    return lambda low, image: program(low, image, numbers)


@functools.cache
def _compiled(function: Callable[..., jax.Array], scale: int, radius: int) -> Any:
    return jax.jit(lambda low, image, numbers: function(low, image, scale=scale, radius=radius, **numbers))


def _training_pictures(run: Run, scale: int) -> dict[str, jax.Array]:
    source, downsample = open_source(run.recipe.data, DepthImages(scale), "train"), Downsample(scale)
    chosen = np.linspace(0, len(source) - 1, TUNING_PICTURES).astype(int).tolist()
    examples = [downsample.map(source[index] or {}) for index in chosen]
    return {name: jnp.asarray(np.stack([example[name] for example in examples])) for name in ("image", "low", "depth")}


def _error(batch: Mapping[str, jax.Array], upsampler: UpsampleFunction) -> float:
    errors = np.asarray(upsampler(batch["low"], batch["image"]) - batch["depth"], np.float64)
    return 100.0 * float(np.sqrt(np.mean(np.square(errors[np.asarray(batch["depth"]) > 0]))))


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
