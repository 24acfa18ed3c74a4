"""The tables' command: what it prints and writes."""

import csv
import json

from ddf_jax.analysis.comparison import Cell
from ddf_jax.analysis.published import PUBLISHED
from experiments.reports import tables


def test_json_is_one_document_of_cells(capsys):
    assert tables.main(["DDF, Table 3c", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["row"] for row in rows] == ["σ = 0.2"] * 2 + ["σ = 0.3"] * 2 + ["σ = 0.4"] * 2
    assert all(row.keys() == set(Cell._fields) for row in rows)
    assert [row["equal"] for row in rows] == [True, False] * 3


def test_markdown_and_csv_hold_every_cell_and_the_picture_is_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tables, "FAMILIES", {"ResNet": ("resnet26",)})
    assert tables.main(["DDF, Table 3c", "--folder", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed in (tmp_path / "tables.md").read_text() + "\n"
    with open(tmp_path / "tables.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["equal"] for row in rows] == ["True", "False"] * 3
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_every_family_that_is_drawn_has_published_accuracies():
    assert {model for models in tables.FAMILIES.values() for model in models} <= PUBLISHED.keys()


def test_an_unknown_table_is_wrong_use(capsys):
    assert tables.main(["DDF, Table 9"]) == 2
    assert "No table's name matches 'DDF, Table 9'" in capsys.readouterr().err
