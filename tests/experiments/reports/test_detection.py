"""Runs of detection compared: rows, table and picture."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.sources import describe
from ddf_jax.training.run import Run
from ddf_jax.training.tasks import Task
from ddf_jax.training.tasks.classification import Classification
from ddf_jax.training.tasks.detection import Detection
from experiments.reports import detection
from tests.ddf_jax.data.small_rooms_panoptic import small_rooms_panoptic
from tests.ddf_jax.training.bright_rectangles import CANVAS, panoptic, rectangle_run

SUMMARY = {
    "dataset": "rooms_panoptic",
    "test_examples": 3,
    "parameters": 1234,
    "steps": 5,
    "epochs": 1,
    "batch_size": 2,
    "seconds": 7.5,
    "images_per_second": 3.0,
    "device": "cpu",
    "devices": 2,
    "versions": {"jax": "0.10.2"},
}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return small_rooms_panoptic(tmp_path_factory.mktemp("rooms"))


def _run(rooms: DataConfig, name: str, task: Task) -> Run:
    run = rectangle_run(task)
    recipe = dataclasses.replace(run.recipe, name=name, data=rooms)
    return dataclasses.replace(run, recipe=recipe, info=describe(rooms, task.examples()))


def test_runs_are_compared_in_a_table_and_a_picture(rooms, tmp_path: Path, monkeypatch, capsys):
    masks = Detection(canvas=CANVAS, masks=True)
    runs = {"boxes": _run(rooms, "boxes", masks), "segments": _run(rooms, "segments", panoptic())}
    scores = {"boxes": {"test_box_ap": 0.25}, "segments": {"test_box_ap": 0.5, "test_pq": 0.125}}
    for name in runs:
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(SUMMARY | scores[name]))
    monkeypatch.setattr(detection, "finished_run", lambda folder: runs[folder.name])
    monkeypatch.setattr(detection, "FOLDER", tmp_path / "rows")
    monkeypatch.setattr(detection, "PICTURES", tmp_path / "pictures")
    monkeypatch.setattr(detection, "DRAWN", 2)
    assert detection.main([str(tmp_path / name) for name in runs]) == 0

    rows = json.loads((tmp_path / "rows" / "rooms_panoptic.json").read_text())
    assert [(row["run"], row["seed"], row["test_box_ap"], row.get("test_pq")) for row in rows] == [
        ("boxes", 0, 0.25, None),
        ("segments", 0, 0.5, 0.125),
    ]
    table = (tmp_path / "rows" / "rooms_panoptic.md").read_text()
    assert "| boxes | 25.0 |  |  |  |  |  |  | 1,234 | 0 | 5 × 2 | 8 |" in table
    assert "| segments | 50.0 |  |  |  | 12.5 |  |  | 1,234 | 0 | 5 × 2 | 8 |" in table
    assert table in capsys.readouterr().out
    with Image.open(io.BytesIO((tmp_path / "pictures" / "rooms_panoptic.png").read_bytes())) as image:
        gap = 8
        assert image.size == (3 * 640 + 2 * gap, 2 * 480 + gap)  # two rooms; the truth and two runs


def test_runs_of_other_tasks_and_datasets_are_refused(rooms, tmp_path: Path, monkeypatch, capsys):
    masks = Detection(canvas=CANVAS, masks=True)
    runs = {"boxes": _run(rooms, "boxes", masks), "classes": rectangle_run(Classification())}
    monkeypatch.setattr(detection, "finished_run", lambda folder: runs[folder.name])
    assert detection.main(["boxes", "classes"]) == 2
    assert "must be of detection or panoptic segmentation on one dataset" in capsys.readouterr().err
    monkeypatch.undo()
    assert detection.main([str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err
