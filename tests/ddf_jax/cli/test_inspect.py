"""`ddf inspect`: the files it writes, and one line for each wrong use."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddf_jax.training.run import load_run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two image files whose sizes and colours differ from the run's."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, shape in {"grey.png": (8, 8), "colour.jpg": (20, 31, 3)}.items():
        Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(folder / name)
    return [folder / "grey.png", folder / "colour.jpg"]


def test_every_picture_that_applies_is_written_whole(ddf, tiny_run, images, tmp_path):
    out = tmp_path / "new" / "pictures"
    status, printed, err = ddf("inspect", tiny_run, *images, "--out", out, "--json")
    assert status == 0, err
    rows = json.loads(printed)
    block = "stages.0.0"
    assert [(row["kind"], row["layer"]) for row in rows] == [
        ("channel_filters", f"{block}.conv1.spatial.channel_branch"),
        ("spatial_filters", f"{block}.conv1.spatial.spatial_branch"),
        ("channel_filters", f"{block}.conv2.spatial.channel_branch"),
        ("spatial_filters", f"{block}.conv2.spatial.spatial_branch"),
        ("grad_cam", block),
        ("spectrum", block),
    ]
    assert sorted(os.listdir(out)) == sorted(f"{row['kind']}-{row['layer']}.png" for row in rows)
    for row in rows:
        with Image.open(row["file"]) as image:
            image.load()
            assert min(image.size) > 200


def test_a_layer_without_filters_gets_grad_cam_and_spectrum_in_the_runs_folder(ddf, tiny_run, images, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    status, printed, err = ddf("inspect", run, images[0], "--layer", "stages.0.0.conv1.pointwise")
    assert (status, err) == (0, "")
    kinds = ["grad_cam", "spectrum"]
    assert printed.splitlines() == [str(run / "inspect" / f"{kind}-stages.0.0.conv1.pointwise.png") for kind in kinds]
    assert len(os.listdir(run / "inspect")) == len(kinds)
    load_run(run)


def test_wrong_uses_are_refused_in_one_line(refused, tiny_run, images, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    out = ("--out", tmp_path / "out")
    for words, message in [
        ([tiny_run], "needs the path of an IMAGE after the RUN"),
        ([tmp_path / "no", *images], f"There is no run in {tmp_path / 'no'}"),
        ([tiny_run, tmp_path / "text.png"], "text.png must be an image file"),
        ([tiny_run, tmp_path / "absent.png"], "absent.png"),
        ([tiny_run, *images, "--layer", "stages.0.conv1"], "got 'stages.0.conv1'. Nearest: stages.0.0.conv1"),
        ([tiny_run, *images, "--layer", "head"], "nothing to draw of 'head', whose output is (1, 10)"),
        ([tiny_run, *images[:1] * 17], "must be 1 to 16 images, a row of the pictures for each, got 17"),
    ]:
        assert message in refused("inspect", *words, *out)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    words = (images[0], "--layer", "stages.0.0.conv1.spatial.channel_branch", "--out", tmp_path / "file" / "in")
    assert "Cannot write pictures to" in refused("inspect", tiny_run, *words)
