"""The tasks of detection and panoptic segmentation: results of examples and their scores."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.analysis.coco_ap import Truth
from ddf_jax.analysis.panoptic_quality import Segments
from ddf_jax.data.info import DataInfo
from ddf_jax.detection.annotations import Detections
from ddf_jax.detection.rle import encode_mask
from ddf_jax.recipes.rooms_mask_rcnn_plain import recipe as rooms
from ddf_jax.training.devices import data_mesh, global_batch, join_local_rows, local_rows
from ddf_jax.training.recipe import Recipe, recipe_from_json, recipe_to_json
from ddf_jax.training.shapes import abstract_batches, compile_each
from ddf_jax.training.tasks.detection import Detection
from ddf_jax.training.tasks.panoptic import Panoptic
from ddf_jax.training.train import train
from tests.aot import uninstall

SIZES = ("SMALL", "MEDIUM", "LARGE")
SIZE, CANVAS = (32, 48), (64, 96)  # of the image, and of the batch in which it is twice as large
BOX = (8, 8, 40, 24)
INFO = DataInfo(2, ("ball", "pole"), 3, train_size=4, eval_size=1, image_size=64, stuff_names=("floor", "wall"))


def mask() -> np.ndarray:
    x1, y1, x2, y2 = BOX
    drawn = np.zeros(SIZE, bool)
    drawn[y1:y2, x1:x2] = True
    return drawn


class OneImage:
    """A pole in front of a wall."""

    class_names, stuff_names = INFO.class_names, INFO.stuff_names

    def __len__(self) -> int:
        return 1

    def truth(self, index: int) -> tuple[int, Truth]:
        boxes, area = np.array([BOX], np.float32), np.array([mask().sum()])
        return 7, Truth(SIZE, boxes, np.array([1]), area, np.array([False]), (encode_mask(mask()),))

    def segments(self, index: int) -> tuple[int, Segments]:
        return 7, Segments(np.where(mask(), 5, 6), np.array([5, 6]), np.array([1, 3]), np.array([False, False]))


def outputs(score: float = 0.9) -> Any:
    """What a detector gives that finds the pole and the wall, for a batch of the image and of padding."""
    make: Any = Detections  # of numpy's arrays, as on the host
    boxes = np.zeros((2, 3, 4), np.float32)
    boxes[:, 0] = 2 * np.array(BOX)
    scores, labels = np.full((2, 3), score, np.float32), np.ones((2, 3), np.int32)
    semantic = np.zeros((2, 16, 24, 3), np.float32)
    semantic[..., 1] = 1  # the wall
    return make(boxes, scores, labels, np.array([1, 1]), np.ones((2, 3, 28, 28), np.float32), semantic)


def batch() -> dict[str, np.ndarray]:
    sizes = np.array([CANVAS, CANVAS], np.int32)
    return {
        "mask": np.array([True, False]),
        "size": sizes,
        "original_size": sizes // 2,
        "image_id": np.array([7, -1], np.int32),
    }


def test_objects_are_scored_in_pixels_of_the_original_image_and_padding_is_none():
    task = Detection(canvas=CANVAS, masks=True)
    results = task.results(batch(), outputs(), OneImage())
    assert [(result["image_id"], result["boxes"], result["labels"]) for result in results] == [(7, [list(BOX)], [1])]
    scores = task.score(results, OneImage())
    assert (scores["test_box_ap"], scores["test_mask_ap"], scores["test_examples"]) == pytest.approx((1.0, 1.0, 1))
    assert "box AP 100.0%" in task.summary_line(scores)
    header, box, mask = task.score_table(scores, INFO).splitlines()
    columns = ["AP", "AP50", "AP75", *("AP " + size for size in SIZES), "AR1", "AR10", "AR100"]
    assert re.split("  +", header.strip()) == columns + ["AR " + size for size in SIZES]
    of_box = ["box", *["100.0"] * 3, "100.0", "-", "-", *["100.0"] * 4, "-", "-"]  # the only object is small
    assert box.split() == of_box
    assert mask.split() == ["mask", *of_box[1:]]
    assert len(Detection(canvas=CANVAS).score_table(scores, INFO).splitlines()) == 2
    nothing = outputs()._replace(number=np.array([0, 0]))
    assert task.score(task.results(batch(), nothing, OneImage()), OneImage())["test_box_ap"] == 0.0


def test_a_panoptic_map_of_the_right_segments_has_a_quality_of_one_and_small_stuff_is_none():
    task = Panoptic(canvas=CANVAS, stuff_area=100)
    scores = task.score(task.results(batch(), outputs(), OneImage()), OneImage())
    assert (scores["test_pq"], scores["test_pq_stuff"], scores["test_box_ap"]) == pytest.approx((1.0, 1.0, 1.0))
    quality, average_precision = task.score_table(scores, INFO).split("\n\n")
    assert [line.split() for line in quality.splitlines()] == [
        ["PQ", "SQ", "RQ"], *([kind, *["100.0"] * 3] for kind in ("all", "things", "stuff"))
    ]  # fmt: skip
    assert average_precision == Detection(canvas=CANVAS, masks=True).score_table(scores, INFO)
    strict = Panoptic(canvas=CANVAS, stuff_area=10_000)
    assert strict.score(strict.results(batch(), outputs(), OneImage()), OneImage())["test_pq"] == pytest.approx(0.5)


@pytest.mark.parametrize("task", [Detection(canvas=CANVAS, masks=True), Panoptic(canvas=CANVAS)])
def test_training_batches_have_masks_and_evaluation_batches_have_none(task):
    training, evaluation = (task.batch_spec(INFO, training=training) for training in (True, False))
    assert training["masks"].shape == (100, 64, 12)
    assert "masks" not in evaluation
    assert ("semantic" in training) == isinstance(task, Panoptic)
    assert recipe_from_json(recipe_to_json(Recipe("any", task=task))).task == task


@pytest.mark.parametrize("kind", [Detection, Panoptic])
def test_upright_images_have_batches_and_programs_of_another_shape(kind: type[Detection]):
    task = kind(canvas=CANVAS, masks=True, upright=True)
    assert [variant.canvas for variant in task.variants()] == [CANVAS, CANVAS[::-1]]
    assert [task.variant(*size).canvas for size in ((9, 9), (9, 8), (8, 9))] == [CANVAS, CANVAS[::-1], CANVAS]
    assert Detection(canvas=CANVAS).variant(9, 8).canvas == CANVAS
    mesh = data_mesh(jax.devices())
    batches = abstract_batches(task, INFO, mesh, 8, training=True)
    assert [batch["masks"].shape for batch in batches] == [(8, 100, 64, 12), (8, 100, 96, 8)]
    step = compile_each(lambda batch: lambda variables, _: (variables, batch["image"].shape), batches)
    for batch in batches:
        assert step(3, {name: jnp.zeros(of.shape, of.dtype) for name, of in batch.items()}) == (3, batch["image"].shape)


def test_a_panoptic_map_of_an_upright_image_is_not_turned():
    task = Panoptic(canvas=CANVAS, stuff_area=1, upright=True)
    logits = np.zeros((1, 24, 16, 3), np.float32)  # of the canvas of 96×64
    logits[0, :12, :, 0], logits[0, 12:, :, 1] = 1, 1  # the floor above the wall
    found = outputs()._replace(semantic=logits)
    arguments: Any = {"size": np.array([96, 64]), "original": np.array([48, 32]), "found": {"masks": [], "labels": []}}
    ids = task.panoptic_ids(found, 0, **arguments, num_things=2)
    assert np.unique(ids[:20]).tolist() == [2]
    assert np.unique(ids[28:]).tolist() == [3]


def test_rows_of_all_devices_come_back_in_their_order():
    arrays = {"a": np.arange(16, dtype=np.float32).reshape(8, 2)}
    placed = global_batch(arrays, data_mesh(jax.devices()))
    np.testing.assert_array_equal(join_local_rows(local_rows(placed))["a"], arrays["a"])


def test_a_missing_evaluator_is_named_before_a_training(monkeypatch, tmp_path):
    uninstall(monkeypatch, "pycocotools")
    with pytest.raises(ModuleNotFoundError, match="pycocotools"):
        train(rooms, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
