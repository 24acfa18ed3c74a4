"""`ddf detect`, from its words to its pictures, and the table of `ddf evaluate`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddf_jax.cli import main
from ddf_jax.data.decode import decode_image, image_size
from ddf_jax.data.panoptic import rgb_to_ids
from ddf_jax.data.sources import open_source
from ddf_jax.detection.rle import decode_rle
from ddf_jax.training import run as runs
from ddf_jax.training.detect import detect
from ddf_jax.training.evaluate import evaluate
from tests.ddf_jax.data.small_rooms_panoptic import small_rooms_panoptic
from tests.ddf_jax.training.bright_rectangles import RectangleRun, panoptic, rectangle_image, rectangle_run

BOX = (20, 10, 40, 30)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[RectangleRun], RectangleRun]:
    """Makes a run that of every folder."""

    def replace(run: RectangleRun) -> RectangleRun:
        monkeypatch.setattr(runs, "load_run", lambda *_, **__: run)
        return run

    return replace


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of 50×70 pixels."""
    Image.fromarray(rectangle_image(50, 70, BOX)).save(tmp_path / "room.png")
    return tmp_path / "room.png"


def files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_json_has_all_objects_with_their_masks_and_writes_no_file(ddf, use, image, tmp_path):
    use(rectangle_run(panoptic()))
    status, out, err = ddf("detect", "run", image, "--json")
    assert status == 0, err
    [row] = json.loads(out)
    assert (row["image"], row["panoptic"]) == (str(image), None)
    assert [found["label"] for found in row["detections"]] == ["pole", "ball"]
    for found, score in zip(row["detections"], (0.9, 0.3), strict=True):
        assert set(found) == {"label", "score", "box", "mask"}
        assert found["score"] == pytest.approx(score)
        assert found["box"] == pytest.approx(BOX, abs=1)
        assert decode_rle(found["mask"], (50, 70)).sum() == pytest.approx(400, rel=0.15)
    assert files(tmp_path) == ["room.png"]
    [row] = json.loads(ddf("detect", "run", image, "--json", "--score", "0.5").out)
    assert [found["label"] for found in row["detections"]] == ["pole"]
    use(rectangle_run())
    assert json.loads(ddf("detect", "run", image, "--json").out)[0]["panoptic"] is None


def test_text_is_a_table_of_the_likely_objects(ddf, use, image):
    use(rectangle_run())
    lines = ddf("detect", "run", image).out.splitlines()
    assert lines[0] == f"{image}, 70×50 pixels"
    assert lines[1].split() == ["class", "score", "x1", "y1", "x2", "y2"]
    name, score, *box = lines[2].split()
    assert (name, score, len(lines)) == ("pole", "0.90", 3)
    assert list(map(float, box)) == pytest.approx(BOX, abs=1)
    assert "ball" in ddf("detect", "run", image, "--score", "0.1").out
    assert "no object with a score of 0.95 or more" in ddf("detect", "run", image, "--score", "0.95").out


def test_pictures_and_cocos_panoptic_image_are_written_for_each_image(ddf, use, image, tmp_path):
    use(rectangle_run(panoptic()))
    out = tmp_path / "new" / "pictures"
    status, printed, err = ddf("detect", "run", image, "--out", out, "--json")
    assert status == 0, err
    assert files(out) == ["room_ids.png", "room_objects.png", "room_panoptic.png"]
    [row] = json.loads(printed)
    assert row["panoptic"] == str(out / "room_ids.png")
    ids = rgb_to_ids(decode_image((out / "room_ids.png").read_bytes(), 3))
    assert (ids.shape, np.unique(ids).tolist()) == ((50, 70), [3, 1001])
    for kind in ("objects", "panoptic"):
        assert image_size((out / f"room_{kind}.png").read_bytes()) == (480, 672)
    assert len(row["detections"]) == 2
    likely = (out / "room_objects.png").read_bytes()
    ddf("detect", "run", image, "--out", out, "--score", "0.1")
    assert (out / "room_objects.png").read_bytes() != likely  # both objects


def test_no_picture_replaces_an_image_or_another_picture(ddf, use, image, tmp_path):
    use(rectangle_run())
    inputs = [image, tmp_path / "a" / "room.jpg", tmp_path / "room_objects.png", tmp_path / "Room.png"]
    inputs[1].parent.mkdir()
    for index, file in enumerate(inputs[1:]):
        Image.fromarray(rectangle_image(50, 80 + index, BOX)).save(file)
    before = {file: file.read_bytes() for file in inputs}
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path)
    status, out, err = ddf("detect", "run", *inputs, "--out", linked)
    assert status == 0, err
    assert out.splitlines()[-1] == f"The pictures are in {linked}."
    assert {file: file.read_bytes() for file in inputs} == before
    made = {"room-2_objects.png", "room-3_objects.png", "room_objects_objects.png", "Room-4_objects.png"}
    assert {file.name for file in tmp_path.glob("*.png")} == made | {"room.png", "room_objects.png", "Room.png"}


def test_wrong_use_is_refused_in_a_line_and_nothing_is_written(refused, use, image, tmp_path):
    run = use(rectangle_run())
    (tmp_path / "text.png").write_text("no image")
    out = ["--out", tmp_path / "pictures"]
    for words, message in [
        ([], "needs the path of an IMAGE"),
        ([image, tmp_path / "absent.png", *out], "There is no file"),
        ([*[image] * 8, tmp_path / "text.png", *out], "text.png must be an image file"),
        ([image, "--out", image], "--out must be a folder, got the file"),
        ([image, "--out", image / "below"], "--out must be a folder that can be created"),
        ([image, "--score", "50", *out], "--score must be from 0 to 1, got 50"),
        ([image, "--score", "nan", *out], "--score must be from 0 to 1"),
    ]:
        assert message in refused("detect", "run", *words)
    assert files(tmp_path) == ["room.png", "text.png"]
    assert not run.batches
    assert "Try `ddf detect`" in refused("predict", "run", image)


def test_a_picture_that_cannot_be_written_is_named(refused, use, image, tmp_path):
    use(rectangle_run())
    (tmp_path / "out" / "room_objects.png").mkdir(parents=True)
    error = refused("detect", "run", image, "--out", tmp_path / "out")
    assert "room_objects.png must be a file that can be written: Is a directory" in error


def test_a_missing_run_is_refused(refused, image, tmp_path):
    assert "There is no run" in refused("detect", tmp_path / "no", image)


RECIPE = """
from pathlib import Path

from ddf_jax.data.config import DataConfig
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.panoptic import Panoptic

counts = {{"training": {{"before_nms": 40, "count": 30}}, "evaluation": {{"before_nms": 30, "count": 20}}}}
options = {{
    "backbone_options": {{"width": 8, "blocks": (1, 1, 1, 1)}},
    "channels": 32,
    "semantic_channels": 32,
    "rpn": {{"sampler": {{"count": 32}}, **counts}},
    "regions": {{"sampler": {{"count": 16}}, "hidden": 16, "mask_depth": 1, "detection": {{"score": 0.01}}}},
}}
recipe = Recipe(
    name="tiny_rooms",
    model=ModelConfig("panoptic_fpn_resnet50", options),
    data=DataConfig(dataset="rooms_panoptic", augment="flip", data_dir=Path({data_dir!r})),
    optimizer=OptimizerConfig(warmup_epochs=0.0, learning_rate=0.01),
    task=Panoptic(canvas=(64, 96), stuff_area=20),
    epochs=1.6,  # 1 step of the 5 rooms
    batch_size=8,
)
"""


@pytest.mark.slow
def test_a_trained_run_finds_what_its_evaluation_finds(ddf, tmp_path):
    config = small_rooms_panoptic(tmp_path)
    recipe, folder = tmp_path / "tiny_rooms.py", tmp_path / "run"
    recipe.write_text(RECIPE.format(data_dir=str(config.data_dir)))
    assert main(["train", str(recipe), "--workdir", str(folder)]) == 0
    assert [file.name for file in (folder / "pictures").iterdir()] == ["000001.png"]

    run: Any = runs.load_run(folder)
    task, seen = run.recipe.task, []
    score = type(task).score
    with pytest.MonkeyPatch.context() as patch:

        def remember(self: Any, results: Any, source: Any) -> Any:
            seen.extend(results)
            return score(self, results, source)

        patch.setattr(type(task), "score", remember)
        scores = evaluate(run)
    source = open_source(run.recipe.data, task.examples(), "eval")
    images: list[Any] = [dict(source[index] or {})["image"] for index in range(len(source))]
    for found, result in zip(detect(run, images), seen, strict=True):
        assert len(found.boxes)
        np.testing.assert_allclose(found.boxes, result["boxes"], atol=1e-3)
        np.testing.assert_allclose(found.scores, result["scores"], atol=1e-5)
        assert found.labels.tolist() == result["labels"]
        numbers = [segment["id"] for segment in result["segments"]]
        assert found.panoptic is not None
        assert [number for number in np.unique(found.panoptic).tolist() if number] == numbers

    Image.fromarray(images[0]).save(tmp_path / "room.png")
    status, out, err = ddf("detect", folder, tmp_path / "room.png", "--out", tmp_path / "out", "--score", "0", "--json")
    assert status == 0, err
    assert len(json.loads(out)[0]["detections"]) == len(seen[0]["boxes"])
    lines = ddf("evaluate", folder).out.splitlines()
    assert lines[0] == f"tiny_rooms, step 1: {task.summary_line(scores)}."
    assert [line.split()[0] for line in lines[2:] if line] == ["PQ", "all", "things", "stuff", "AP", "box", "mask"]
