"""Rooms with masks and boxes, as they are prepared and read again."""

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.datasets import rooms_panoptic
from ddf_jax.data.datasets.furniture import CLASSES
from ddf_jax.data.datasets.prepared import open_split, prepared_builder
from ddf_jax.data.datasets.rendering import STUFF, render_room
from ddf_jax.data.panoptic import rgb_to_ids

FEATURES = ("objects", "stuff")


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # TFDS leaves an empty temporary folder behind
    monkeypatch.setattr(rooms_panoptic, "SIZES", {"train": 2, "test": 4, "validation": 1})
    monkeypatch.setattr(rooms_panoptic, "HEIGHT", 24)
    monkeypatch.setattr(rooms_panoptic, "WIDTH", 32)
    builder: Any = prepared_builder("rooms_panoptic", tmp_path)
    assert builder.info.features["objects"]["label"].names == list(CLASSES)
    assert builder.info.features["stuff"]["label"].names == list(STUFF)
    return open_split(builder, "test", ("image", "panoptic_image"), FEATURES)


def test_the_tables_list_the_visible_segments_with_their_pixels(records):
    assert len(records) == 4
    for index in range(4):
        record, view = records[index], render_room(np.random.default_rng([1, index]), 24, 32)
        image, panoptic = (np.asarray(Image.open(io.BytesIO(record[name]))) for name in ("image", "panoptic_image"))
        np.testing.assert_array_equal(image, view.image)
        ids = rgb_to_ids(panoptic)
        np.testing.assert_array_equal(ids, view.segments.astype(int) + 1)
        objects, stuff = record["objects"], record["stuff"]
        assert sorted([*objects["id"], *stuff["id"]]) == [*np.unique(ids)]
        names = [CLASSES[label] for label in objects["label"]] + [STUFF[label] for label in stuff["label"]]
        for segment, area, name in zip(
            [*objects["id"], *stuff["id"]], [*objects["area"], *stuff["area"]], names, strict=True
        ):
            assert area == (ids == segment).sum()
            assert name == view.names[segment - 1]
        assert not np.any(objects["is_crowd"])
        for segment, (y1, x1, y2, x2) in zip(objects["id"], objects["bbox"], strict=True):
            rows, columns = np.nonzero(ids == segment)
            box = np.array([rows.min() / 24, columns.min() / 32, (rows.max() + 1) / 24, (columns.max() + 1) / 32])
            np.testing.assert_allclose([y1, x1, y2, x2], box, rtol=1e-6)
    assert sum(len(records[index]["objects"]["id"]) for index in range(4)) > 8
