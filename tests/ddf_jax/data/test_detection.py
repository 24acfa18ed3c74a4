"""Images with objects on their way into a batch: sources, batches, refused settings."""

import contextlib
import dataclasses
from typing import Any

import numpy as np
import pytest

from ddf_jax.analysis.coco_ap import Detections, average_precision
from ddf_jax.analysis.panoptic_quality import PanopticQuality
from ddf_jax.data.config import DataConfig
from ddf_jax.data.datasets.furniture import CLASSES
from ddf_jax.data.datasets.rendering import STUFF, render_room
from ddf_jax.data.detection_source import usable
from ddf_jax.data.examples import DetectionImages
from ddf_jax.data.panoptic import mask_boxes
from ddf_jax.data.pipeline import eval_batches, train_iterator
from ddf_jax.data.sources import describe, open_source
from ddf_jax.errors import UserError
from tests.ddf_jax.data.small_rooms_panoptic import small_rooms_panoptic

KIND = DetectionImages(canvas=(64, 96), max_objects=20, masks=True, semantic="stuff")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return small_rooms_panoptic(tmp_path_factory.mktemp("rooms"))


def example_of(config: DataConfig, kind: DetectionImages, index: int) -> dict[str, Any]:
    return open_source(config, kind, "train")[index] or {}


def test_an_example_has_the_objects_of_its_room(config: DataConfig):
    info = describe(config, KIND)
    assert (info.class_names, info.stuff_names, info.num_classes) == (CLASSES, STUFF, 6)
    for index in range(5):
        view, example = render_room(np.random.default_rng([0, index]), 48, 64), example_of(config, KIND, index)
        numbers = [number for number in np.unique(view.segments) if number >= len(STUFF)]
        np.testing.assert_array_equal(example["masks"], [view.segments == number for number in numbers])
        assert [CLASSES[label] for label in example["labels"]] == [view.names[number] for number in numbers]
        stuff = np.where(view.segments < len(STUFF), view.segments, len(STUFF))
        np.testing.assert_array_equal(example["semantic"], stuff)
        assert example["image_id"] == index


def test_boxes_are_the_same_with_and_without_masks(config: DataConfig):
    for index in range(5):
        boxes = example_of(config, KIND, index)["boxes"]
        assert boxes.dtype == np.float32
        np.testing.assert_array_equal(boxes, example_of(config, DetectionImages(), index)["boxes"])


def test_a_map_of_all_classes_has_things_before_stuff(config: DataConfig):
    example = example_of(config, dataclasses.replace(KIND, semantic="all"), 0)
    for label, mask in zip(example["labels"], example["masks"], strict=True):
        assert (example["semantic"][mask] == label).all()
    floor = example["semantic"][-1, :][~example["masks"][:, -1].any(0)]
    assert {*floor} <= {len(CLASSES) + STUFF.index(name) for name in ("wall", "floor")}


def test_training_batches_have_one_shape_and_evaluation_no_masks(config: DataConfig):
    with contextlib.closing(train_iterator(config, KIND, batch_size=2, seed=0)) as iterator:
        batch = next(iterator)
    assert {name: values.shape[1:] for name, values in batch.items()} == {
        "image": (64, 96, 3),
        "size": (2,),
        "original_size": (2,),
        "image_id": (),
        "boxes": (20, 4),
        "labels": (20,),
        "known": (20,),
        "masks": (20, 64, 12),
        "semantic": (64, 96),
        "mask": (),
    }
    np.testing.assert_array_equal(batch["size"], [[64, 85]] * 2)  # 48 × 64 scaled by 4/3
    masks = np.unpackbits(batch["masks"], axis=-1, count=96).astype(bool)
    np.testing.assert_array_equal(masks.any((2, 3)), batch["known"])
    for row in range(2):
        found = batch["known"][row]
        np.testing.assert_allclose(mask_boxes(masks[row])[found], batch["boxes"][row][found], atol=0.6)
    with contextlib.closing(eval_batches(config, KIND, batch_size=2)) as batches:
        first, last = batches
    assert "masks" not in first
    assert "semantic" not in first
    assert last["mask"].tolist() == [True, False]
    assert last["image_id"].tolist() == [2, -1]
    assert not last["known"][1].any()


@pytest.mark.parametrize("augment", ["flip", "jitter"])
def test_a_resumed_iterator_gives_the_same_batches(config: DataConfig, augment: str):
    config = dataclasses.replace(config, augment=augment)
    with contextlib.closing(train_iterator(config, KIND, batch_size=2, seed=1)) as iterator:
        expected = [next(iterator) for _ in range(4)][-1]
    with contextlib.closing(train_iterator(config, KIND, batch_size=2, seed=1)) as iterator:
        iterator.set_state({"step": 3})
        batch = next(iterator)
    for name, values in expected.items():
        np.testing.assert_array_equal(batch[name], values)


def test_the_truth_scores_full_marks(config: DataConfig):
    source: Any = open_source(config, KIND, "eval")
    truths, detections = {}, {}
    quality = PanopticQuality(len(CLASSES), len(CLASSES) + len(STUFF))
    for index in range(len(source)):
        number, truth = source.truth(index)
        truths[number] = truth
        detections[number] = Detections(truth.boxes, np.ones(len(truth.labels)), truth.labels, truth.masks)
        segments = source.segments(index)[1]
        quality.add(segments, segments)
    for kind in ("box", "mask"):
        result = average_precision(truths, detections, num_classes=len(CLASSES), kind=kind)
        assert result.metrics["ap"] == pytest.approx(1.0)
    assert quality.scores()["all"][:3] == (1.0, 1.0, 1.0)
    assert sum(len(truth.labels) for truth in truths.values()) > 8


def test_what_mmdetection_leaves_out_is_not_usable():
    boxes = np.array([[0, 0, 5, 5], [-9, 0, 0, 9], [3, 3, 3.5, 9], [0, 0, 9, 9], [18, 8, 30, 30], [20, 0, 25, 5]])
    areas = np.array([25, 81, 3, 0, 200, 25])
    assert usable(boxes, areas, (10, 20)).tolist() == [True, False, False, False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"canvas": (64, 100)}, r"`canvas` must be height and width, multiples of 32, got \(64, 100\)"),
        ({"max_objects": 0}, "`max_objects` must be at least 1, got 0"),
        ({"canvas": (96, 64), "upright": True}, r"wider than high with `upright`, .*, got \(96, 64\)"),
        ({"semantic": "things"}, "`semantic` must be None, stuff or all, got 'things'"),
    ],
)
def test_options_that_make_no_batch_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        DetectionImages(**options)


def test_a_dataset_whose_images_sizes_are_not_known_has_no_canvas_for_upright_ones(config: DataConfig):
    with pytest.raises(UserError, match=r"`task.upright` needs a folder in COCO's layout, .*, got rooms_panoptic"):
        train_iterator(config, dataclasses.replace(KIND, upright=True), batch_size=1, seed=0)


def test_an_augmentation_of_another_task_is_refused(config: DataConfig):
    with pytest.raises(UserError, match=r"`augment` must be one of none, flip, jitter for detection, got 'imagenet'"):
        train_iterator(dataclasses.replace(config, augment="imagenet"), KIND, batch_size=1, seed=0)


def test_a_dataset_without_objects_is_refused(digits: DataConfig):
    config = DataConfig(dataset="digits", data_dir=digits.data_dir)
    with pytest.raises(UserError, match=r"digits/1.0.0 must hold .* `bbox` .* got FeaturesDict.*rooms_panoptic"):
        open_source(config, DetectionImages(), "train")
