from pathlib import Path

import numpy as np
from PIL import Image

from experiments.benchmarks import input as input_benchmark


def test_each_part_and_loop_has_a_row(tmp_path: Path):
    folder = tmp_path / "64x48"
    input_benchmark.write_images(folder, 64, 48, 4, copies=1)
    assert len(list((folder / "train").rglob("*.jpg"))) == 8
    rows = input_benchmark.per_core(folder, batch=2, batches=1, rounds=1)
    assert [row["implementation"] for row in rows] == ["bare", "pipeline", "pipeline_draft"]
    assert rows[0]["of_bare"] == 1.0
    rows += input_benchmark.loops(folder, batch=2, batches=1, rounds=1)
    assert [row["implementation"] for row in rows[3:]] == ["stream", "empty_step", "model_step"]
    assert all(0 <= row["wait_share"] <= 1 for row in rows[3:])
    assert len({tuple(row) for row in rows}) == 1


def test_the_images_have_as_many_bytes_as_photos(tmp_path: Path):
    Image.fromarray(input_benchmark.photo(np.random.default_rng(0), 500, 375)).save(tmp_path / "a.jpg", quality=90)
    assert 50_000 < (tmp_path / "a.jpg").stat().st_size < 100_000
