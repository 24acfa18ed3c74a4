"""Classifiers side by side on corrupted pictures: rows, tables and pictures."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.corruptions import FAMILIES
from ddf_jax.training.recipe import ModelConfig, Recipe
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling
from experiments.reports import robustness

FACTS = {"parameters": 1234, "steps": 5, "epochs": 1.0, "batch_size": 2, "seconds": 8.4, "images_per_second": 9.0}


def found(run, severities, report) -> dict:
    """What `robustness` would find: errors of 20 %, of the second run 10 % less under noise."""
    del report
    less = {"noise": 0.1 if run.recipe.name == "other" else 0.0}
    corruptions = {
        name: {"family": family, "errors": [error] * len(severities), "mean_error": error}
        for family, names in FAMILIES.items()
        for name in names
        for error in [0.2 - less.get(family, 0.0)]
    }
    return {
        "name": run.recipe.name,
        "model": "resnet18",
        "dataset": "digits",
        "test_accuracy": 0.9,
        "test_examples": 360,
        "severities": list(severities),
        "corruptions": corruptions,
        "families": {family: corruptions[names[0]]["mean_error"] for family, names in FAMILIES.items()},
        "mean_corruption_error": float(np.mean([row["mean_error"] for row in corruptions.values()])),
        "device": "cpu",
        "devices": 1,
        "versions": {"jax": "0.10.2"},
    }


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Folders of two finished runs, and where the report writes."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = DataConfig(data_dir=tmp_path, image_size=16)
    recipes = {name: Recipe(name=name, model=ModelConfig("resnet18"), data=data) for name in ("base", "other")}
    for name in recipes:
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(FACTS))
    monkeypatch.setattr(robustness, "finished_run", lambda folder: SimpleNamespace(recipe=recipes[folder.name]))
    monkeypatch.setattr(robustness, "robustness", lambda run, **options: found(run, **options))
    monkeypatch.setattr(robustness, "FOLDER", tmp_path / "rows")
    monkeypatch.setattr(robustness, "PICTURES", tmp_path / "pictures")
    return recipes, [str(tmp_path / name) for name in recipes]


def test_rows_tables_and_pictures_are_written(runs, tmp_path, capsys):
    assert robustness.main([*runs[1], "--severities", "1", "5"]) == 0
    rows = json.loads((tmp_path / "rows" / "digits.json").read_text())
    assert [(row["name"], row["severities"], row["parameters"]) for row in rows] == [
        ("base", [1, 5], 1234),
        ("other", [1, 5], 1234),
    ]
    table = (tmp_path / "rows" / "digits.md").read_text()
    assert table in capsys.readouterr().out
    assert "| base | 10.0 | 20.0 | 20.0 | 20.0 | 20.0 | 20.0 | 1,234 | 5 × 2 | 8 |" in table
    assert "| other | 10.0 | 10.0 | 20.0 | 20.0 | 20.0 | 17.9 | 1,234 | 5 × 2 | 8 |" in table
    assert "| shot_noise | noise | 20.0 | 10.0 |" in table
    for name in ("robustness_digits", "corruptions_digits"):
        with Image.open(io.BytesIO((tmp_path / "pictures" / f"{name}.png").read_bytes())) as picture:
            assert picture.width > 600


def test_one_run_or_runs_of_another_task_are_refused(runs, tmp_path, capsys, monkeypatch):
    assert robustness.main(runs[1][:1]) == 2
    assert "two runs of classification or more, on one dataset, got {'base': 'digits'}" in capsys.readouterr().err
    depth = SimpleNamespace(recipe=Recipe(name="depth", task=DepthUpsampling()))
    monkeypatch.setattr(robustness, "finished_run", lambda folder: depth)
    assert robustness.main(runs[1]) == 2
    monkeypatch.undo()
    assert robustness.main([str(tmp_path / "none"), str(tmp_path / "none")]) == 2
    assert "holds no finished run" in capsys.readouterr().err
