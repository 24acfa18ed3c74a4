"""Runs side by side: what is counted, printed and written."""

import json
from types import SimpleNamespace

import pytest
from flax import nnx

from ddf_jax.models import create
from experiments.reports import compare

SUMMARY = {
    "model": "resnet18",
    "parameters": 1234,
    "test_accuracy": 0.975,
    "steps": 5,
    "seconds": 61.4,
    "images_per_second": 1500.4,
    "device": "cpu",
    "devices": 1,
    "versions": {"jax": "0.10.2"},
}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Folders of two finished runs of a network with one block."""
    options = {"stem": "small", "width": 4, "blocks": (1,), "num_classes": 3, "in_channels": 1}
    model = nnx.eval_shape(lambda: create("resnet18", **options, rngs=nnx.Rngs(0)))
    run = SimpleNamespace(model=lambda: model, info=SimpleNamespace(image_size=8, channels=1))
    monkeypatch.setattr(compare, "load_run", lambda folder: run)
    folders = [tmp_path / "one", tmp_path / "other_run"]
    for folder in folders:
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({"name": folder.name, **SUMMARY}))
    return folders


def test_the_table_has_a_row_for_each_run_and_columns_that_line_up(runs, capsys):
    assert compare.main(list(map(str, runs))) == 0
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == list(compare.COLUMNS)
    assert {len(line) for line in (rule, *rows)} == {len(header)}
    core = 8 * 8 * 9 * (1 * 4 + 4 * 4 + 4 * 4) + 4 * 3
    # Three times batch normalisation and ReLU, the pooling, and the head's biases.
    mmcv = core + 8 * 8 * 4 * (3 * 2 + 3 + 1) + 3
    for folder, row in zip(runs, rows, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells == [folder.name, "resnet18", "1,234", f"{core:,}", f"{mmcv:,}", "97.50%", "5", "61", "1,500"]
    assert not (runs[0].parent / "results").exists()


def test_rows_and_table_are_written(runs, capsys):
    results = runs[0].parent / "results"
    assert compare.main([*map(str, runs), "--write", str(results)]) == 0
    assert capsys.readouterr().out in (results / "zoo.md").read_text()
    assert sorted(file.name for file in results.iterdir()) == ["one.json", "other_run.json", "zoo.md"]
    row = json.loads((results / "one.json").read_text())
    assert row.items() >= SUMMARY.items()
    assert row.keys() - SUMMARY.keys() == {"name", "macs_core", "macs_mmcv", "date"}


def test_a_folder_without_a_finished_run_is_wrong_use(runs, tmp_path, capsys):
    assert compare.main([str(runs[0]), str(tmp_path / "no"), "--write", str(tmp_path / "results")]) == 2
    printed = capsys.readouterr()
    assert f"{tmp_path / 'no'} holds no finished run" in printed.err
    assert printed.out == ""
    assert not (tmp_path / "results").exists()
