"""A run for depth from the command line: trained, evaluated, and used on a depth map of one's own."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.decode import decode_depth, encode_depth
from ddf_jax.data.reading import read_depth, read_rgb
from ddf_jax.training.tasks import depth_upsampling
from tests.ddf_jax.data.small_rooms import small_rooms

RECIPE = """
from pathlib import Path

from ddf_jax.data.config import DataConfig
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling

recipe = Recipe(
    name="tiny_depth",
    model=ModelConfig("djf", {{"widths": (4, 3, 1), "joint_widths": (4, 3)}}),
    data=DataConfig(dataset="rooms", image_size=16, augment="holes", data_dir=Path({data_dir!r})),
    optimizer=OptimizerConfig(method="adam", warmup_epochs=0.0, weight_decay=0.0),
    task=DepthUpsampling(scale=4),
    epochs=6.4,  # 4 steps of the 5 rooms
    batch_size=8,
    evaluate_every=3.2,
    log_every=1,
)
"""


@pytest.fixture(scope="module")
def depth_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ddf_jax.cli import main

    folder = tmp_path_factory.mktemp("depth")
    small_rooms(folder)
    file = folder / "tiny_depth.py"
    file.write_text(RECIPE.format(data_dir=str(folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depth_upsampling, "_DRAWN", 1)
        assert main(["train", str(file), "--workdir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A picture of 19×30 pixels and a depth map of 5×8 with a hole."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (19, 30, 3), np.uint8)).save(tmp_path / "rgb.png")
    depth = rng.uniform(1, 3, (5, 8))
    depth[2, 3:5] = 0
    (tmp_path / "depth.png").write_bytes(encode_depth(depth).getvalue())
    return tmp_path / "depth.png", tmp_path / "rgb.png"


def test_a_run_for_depth_leaves_its_score_and_pictures(ddf, depth_run: Path):
    summary = json.loads((depth_run / "summary.json").read_text())
    assert (summary["model"], summary["steps"], summary["test_examples"]) == ("djf", 4, 3)
    assert summary["test_pixels"] == 3 * 20 * 27
    assert 0 < summary["test_rmse"] < 500
    assert "test_accuracy" not in summary
    assert [path.name for path in sorted((depth_run / "pictures").iterdir())] == ["000002.png", "000004.png"]
    rows = [json.loads(line) for line in (depth_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "test_rmse" in row] == [2, 4]
    for row in rows:
        if "train_rmse" in row:
            assert row["train_rmse"] == pytest.approx(100 * row["train_loss"])
    status, out, _ = ddf("evaluate", depth_run)
    assert status == 0
    assert out == f"tiny_depth, step 4: test RMSE {summary['test_rmse']:.2f} cm, 1,620 pixels of 3 images.\n"
    assert (
        f"is done: test RMSE {summary['test_rmse']:.2f} cm"
        in ddf("train", depth_run.parent / "tiny_depth.py", "--workdir", depth_run).out
    )


def test_a_depth_map_gets_the_pictures_resolution_without_holes(ddf, depth_run: Path, files, tmp_path: Path):
    depth, rgb = files
    status, out, err = ddf("upsample", depth_run, "--depth", depth, "--rgb", rgb, tmp_path / "out.png", "--json")
    assert status == 0, err
    assert json.loads(out) == {"out": str(tmp_path / "out.png"), "height": 19, "width": 30, "scale": 4}
    result = decode_depth((tmp_path / "out.png").read_bytes())
    assert result.shape == (19, 30)
    assert result.min() > 0
    assert 0.5 < np.median(result) < 4


def test_both_rasters_of_a_scene_are_read_as_stored(files):
    depth, rgb = files
    image, low = read_rgb(rgb), read_depth(depth)
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    for file in files:
        Image.open(file).save(file, exif=exif)
    np.testing.assert_array_equal(read_rgb(rgb), image)
    np.testing.assert_array_equal(read_depth(depth), low)


def test_the_unit_of_a_depth_map_is_an_option(ddf, refused, depth_run: Path, files, tmp_path: Path):
    depth, rgb = files
    np.save(tmp_path / "units.npy", np.round(read_depth(depth) * 5000))
    results = []
    for given in ((depth,), (tmp_path / "units.npy", "--depth-scale", 5000)):
        assert ddf("upsample", depth_run, "--rgb", rgb, tmp_path / "out.png", "--depth", *given).status == 0
        results.append(decode_depth((tmp_path / "out.png").read_bytes()))
    np.testing.assert_allclose(*results, atol=0.0011)
    call = ("upsample", depth_run, "--rgb", rgb, tmp_path / "out.png", "--depth", tmp_path / "units.npy")
    assert "Depth must be at most 65.534 m, which OUT can hold, got" in refused(*call)
    assert "--depth-scale must be the units per metre, a positive number, got 0" in refused(*call, "--depth-scale", 0)


def test_wrong_sizes_and_files_are_one_clear_line_and_leave_nothing(refused, depth_run: Path, files, tmp_path: Path):
    depth, rgb = files
    eight_bit, other, text, dark = (tmp_path / f"{name}.png" for name in ("eight_bit", "other", "text", "dark"))
    Image.new("L", (8, 5), 9).save(eight_bit)
    other.write_bytes(encode_depth(np.ones((5, 7))).getvalue())
    dark.write_bytes(encode_depth(np.zeros((5, 8))).getvalue())
    text.write_text("no image")
    out = tmp_path / "out.png"
    for given, message in (
        (
            (eight_bit, rgb, out),
            "eight_bit.png must be a depth map, a grey PNG, TIFF or PGM of more than 8 bits or an NPY array, got a PNG",
        ),
        ((rgb, rgb, out), "rgb.png must be a depth map"),
        ((text, rgb, out), "NPY array, got no known image format"),
        ((dark, rgb, out), "dark.png must have a pixel that was measured, got holes everywhere"),
        ((tmp_path / "no.png", rgb, out), "no.png must be a depth map"),
        ((depth, text, out), "text.png must be an image file"),
        ((other, rgb, out), "for an image of 19×30 the depth must be 5×8, got 5×7"),
        ((depth, rgb, tmp_path / "out.jpg"), "OUT must be a .png file in a folder that exists"),
        ((depth, rgb, tmp_path / "no" / "out.png"), "OUT must be a .png file in a folder that exists"),
    ):
        error = refused("upsample", depth_run, "--depth", given[0], "--rgb", given[1], given[2])
        assert message in error
        assert not given[2].exists()
    (tmp_path / "folder.png").mkdir()
    assert "OUT must be" in refused("upsample", depth_run, "--depth", depth, "--rgb", rgb, tmp_path / "folder.png")
    assert not list(tmp_path.glob(".*"))


def test_a_run_is_used_for_what_it_finds(refused, depth_run: Path, tiny_run: Path, files, tmp_path: Path):
    depth, rgb = files
    error = refused("upsample", tiny_run, "--depth", depth, "--rgb", rgb, tmp_path / "o.png")
    assert "must be one of depth upsampling, got tiny, a Classification" in error
    assert "Try `ddf upsample`" in refused("predict", depth_run, rgb)
