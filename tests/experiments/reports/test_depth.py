"""Runs for depth compared with upsampling without training: scores, settings, table and picture."""

import dataclasses
import json
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.depth_transforms import Downsample
from ddf_jax.data.examples import DepthImages
from ddf_jax.data.sources import open_source
from ddf_jax.functional import bicubic_upsample
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.classification import Classification
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling
from ddf_jax.training.train import train
from experiments.reports import depth, depth_methods
from experiments.reports.compare import finished_run
from tests.ddf_jax.data.small_rooms import small_rooms

OPTIONS = {"widths": (4, 3, 1), "joint_widths": (4, 3)}
ADAM = OptimizerConfig(method="adam", warmup_epochs=0.0)
SUMMARY = ("parameters", "steps", "seconds", "images_per_second")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return small_rooms(tmp_path_factory.mktemp("rooms"))


@pytest.fixture(scope="module")
def run(rooms: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, without pictures, on one device."""
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe("tiny_depth", ModelConfig("djf", OPTIONS), rooms, ADAM, DepthUpsampling(), epochs=1.6, batch_size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DepthUpsampling, "draw", lambda *_: b"")
        train(recipe, folder, devices=jax.devices()[:1])
    return folder


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(depth, "FOLDER", tmp_path / "rows")
    monkeypatch.setattr(depth, "PICTURES", tmp_path / "pictures")
    fewer = {
        name: (function, {parameter: values[:1] for parameter, values in grid.items()})
        for name, (function, grid) in depth_methods.GRIDS.items()
        if name in ("Markov random field", *depth.DRAWN_METHODS)  # the others take seconds to compile
    }
    monkeypatch.setattr(depth_methods, "GRIDS", fewer)
    monkeypatch.setattr(
        depth_methods, "TUNING_PICTURES", 10
    )  # as many as in a batch of the test split: the same programs
    monkeypatch.setattr(depth, "DRAWN", 2)
    return tmp_path


@pytest.mark.slow
def test_every_method_has_a_row_from_the_same_pictures(rooms, run, results, capsys):
    assert depth.main(["--also", "validation", str(run)]) == 0
    rows = {row["method"]: row for row in json.loads((results / "rows" / "depth.json").read_text())}
    assert rows.keys() == {"bicubic", "djf", *depth_methods.GRIDS}
    summary, row = json.loads((run / "summary.json").read_text()), rows["djf"]
    assert row["rmse_cm"] == pytest.approx(summary["test_rmse"], rel=1e-5)
    assert all(row[name] == summary[name] for name in SUMMARY)
    bicubic, other = (bicubic_rmse(rooms, split) for split in ("test", "validation"))
    assert rows["bicubic"]["rmse_cm"] == pytest.approx(bicubic, rel=1e-5)
    assert rows["bicubic"]["also_rmse_cm"] == pytest.approx(other, rel=1e-5)
    for row in rows.values():
        assert row["below_bicubic"] == pytest.approx(1 - row["rmse_cm"] / bicubic, abs=1e-5)
        assert (row["dataset"], row["scale"], row["test_pictures"]) == ("rooms/1.3.0", 4, 3)
    text = (results / "rows" / "depth.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    assert [line.split(" |")[0][2:].split(" (")[0] for line in text.splitlines()[6:]] == sorted(
        rows, key=lambda name: -rows[name]["rmse_cm"]
    )
    with Image.open(results / "pictures" / "joint_depth_4x.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def bicubic_rmse(rooms: DataConfig, split: str) -> float:
    upsample = jax.jit(bicubic_upsample, static_argnames=("height", "width", "scale"))
    source, errors = open_source(dataclasses.replace(rooms, eval_split=split), DepthImages(4), "eval"), []
    for index in range(len(source)):
        example = Downsample(4).map(source[index] or {})
        height, width = example["depth"].shape[:2]
        upsampled = upsample(example["low"][None], height=height, width=width, scale=4)
        errors.append(np.asarray(upsampled[0], np.float64) - example["depth"])
    return 100 * float(np.sqrt(np.mean(np.square(errors))))


def test_settings_are_those_with_the_least_error_on_training_pictures(run, monkeypatch):
    function, _ = depth_methods.GRIDS["joint bilateral"]
    blurring = {"radius": (1, 3), "sigma_space": (50.0, 0.6), "sigma_colour": (50.0, 0.06)}
    monkeypatch.setattr(depth_methods, "GRIDS", {"joint bilateral": (function, blurring)})
    _, bilateral = depth_methods.without_training(finished_run(run).recipe.data, 4)
    assert bilateral.facts["setting"].endswith("sigma_space 0.6, sigma_colour 0.06")


def test_without_runs_the_classical_methods_are_scored_and_rows_of_networks_stay(rooms, results, monkeypatch, capsys):
    monkeypatch.setattr(depth_methods, "GRIDS", {})
    recipe = Recipe("tiny", ModelConfig("djf"), rooms, task=DepthUpsampling(scale=8))
    monkeypatch.setattr(depth, "find_recipe", {"tiny": recipe}.__getitem__)
    assert depth.main(["--recipe", "tiny"]) == 0
    path = results / "rows" / "depth_8x.json"
    [bicubic] = json.loads(path.read_text())
    assert (bicubic["method"], bicubic["scale"], bicubic["test_pictures"]) == ("bicubic", 8, 3)
    network = bicubic | {
        "method": "dmsg",
        "rmse_cm": 1.0,
        "parameters": 7,
        "steps": 3,
        "seconds": 5,
        "date": "2026-01-01",
    }
    elsewhere = network | {"method": "djf", "test_pictures": 4}
    path.write_text(json.dumps([bicubic | {"rmse_cm": 0.0}, network, elsewhere]))
    assert depth.main(["--recipe", "tiny"]) == 0
    assert json.loads(path.read_text()) == [bicubic, network]
    assert "| dmsg | 1.00 |" in capsys.readouterr().out
    assert not (results / "pictures").exists()


def test_what_cannot_be_compared_is_one_line(run, results, tmp_path, monkeypatch, capsys):
    assert depth.main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere holds no finished run: " in capsys.readouterr().err
    assert depth.main([]) == depth.main([str(run), "--recipe", "joint_depth_4x"]) == 2
    assert capsys.readouterr().err == 2 * "Either runs or `--recipe NAME` must be given.\n"
    assert depth.main(["--recipe", "digits"]) == 2
    assert "on one dataset and with one scale, got digits (digits, None)." in capsys.readouterr().err
    assert depth.main(["--also", "train2", str(run)]) == 2
    assert "train2" in capsys.readouterr().err
    digits = {"data": DataConfig("digits"), "task": Classification()}
    others = {"scale": {"task": DepthUpsampling(scale=8)}, "data": {"data": DataConfig("nyu")}, "task": digits}
    recipe = finished_run(run).recipe
    recipes = {str(run): recipe, **{name: dataclasses.replace(recipe, **values) for name, values in others.items()}}
    monkeypatch.setattr(depth, "finished_run", lambda folder: types.SimpleNamespace(recipe=recipes[str(folder)]))
    for arguments, got in (
        ([run, "scale"], "tiny_depth (rooms, 4), tiny_depth (rooms, 8)"),
        ([run, "data"], "tiny_depth (rooms, 4), tiny_depth (nyu, 4)"),
        (["task"], "tiny_depth (digits, None)"),
    ):
        assert depth.main(list(map(str, arguments))) == 2
        expected = f"All runs must be for depth, on one dataset and with one scale, got {got}.\n"
        assert capsys.readouterr().err == expected
