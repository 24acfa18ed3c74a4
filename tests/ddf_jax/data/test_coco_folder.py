"""Folders with COCO's JSON of instances: what is read, left out and refused."""

import contextlib
import io
import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ddf_jax.analysis.coco_ap import Detections, average_precision
from ddf_jax.data.config import DataConfig
from ddf_jax.data.detection_source import Labels
from ddf_jax.data.examples import DetectionImages
from ddf_jax.data.pipeline import eval_batches
from ddf_jax.data.sources import describe, open_source
from ddf_jax.detection.rle import decode_rle, encode_mask, rle_to_json
from ddf_jax.errors import DataError, UserError
from tests.ddf_jax.data.coco_files import HEIGHT, WIDTH, annotation, instances, mask, opened, write_coco


def test_an_example_has_the_objects_of_its_image_and_classes_are_in_the_order_of_ids(tmp_path: Path):
    source = opened(write_coco(tmp_path))
    assert source.class_names == ("cat", "dog", "bird")
    assert len(source) == 2  # without the empty image
    example = source[0] or {}
    assert (example["image"] == 30).all()
    assert example["image_id"] == 30
    np.testing.assert_array_equal(example["boxes"], [[5, 6, 15, 14], [20.5, 10.25, 40.5, 30.25]])
    assert example["labels"].tolist() == [1, 0]
    np.testing.assert_array_equal(example["masks"][0], mask(5, 6, 10, 8))
    assert {name: str(example[name].dtype) for name in ("boxes", "labels", "masks")} == {
        "boxes": "float32",
        "labels": "int32",
        "masks": "bool",
    }
    assert (source[1] or {})["labels"].tolist() == [1]
    assert "masks" not in (opened(tmp_path, Labels())[0] or {})


def test_the_truth_has_the_crowd_and_its_mask(tmp_path: Path):
    number, truth = opened(write_coco(tmp_path)).truth(0)
    assert number == 30
    assert truth.size == (HEIGHT, WIDTH)
    assert truth.labels.tolist() == [1, 0, 2]
    assert truth.crowd.tolist() == [False, False, True]
    assert truth.areas.tolist() == [80, 400, 400]
    np.testing.assert_array_equal(decode_rle(truth.masks[2], truth.size), mask(0, 0, 10, HEIGHT))
    assert opened(tmp_path, Labels()).truth(0)[1].masks == ()


def test_evaluation_has_every_image_and_takes_val_for_test(tmp_path: Path):
    write_coco(tmp_path)
    write_coco(tmp_path, split="val2017")
    source = opened(tmp_path, split="eval")
    assert "val2017" in source.name
    assert len(source) == 3
    assert (source[2] or {})["boxes"].shape == (0, 4)
    assert (source[2] or {})["masks"].shape == (0, HEIGHT, WIDTH)
    truths = dict(source.truth(index) for index in range(3))
    found = {
        number: Detections(truth.boxes, np.ones(len(truth.labels)), truth.labels, truth.masks)
        for number, truth in truths.items()
    }
    for kind in ("box", "mask"):
        assert average_precision(truths, found, num_classes=3, kind=kind).by_class == pytest.approx([1.0, 1.0, None])


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_scores_are_those_of_cocos_own_api_on_the_file(tmp_path: Path, kind: Literal["box", "mask"]):
    """Random rectangles near the objects, with the file read by `pycocotools.coco.COCO`."""
    data, rng = instances(), np.random.default_rng(0)
    data["annotations"][2]["area"] = 5000  # the file's area decides, not the box'
    write_coco(tmp_path, data, split="val2017")
    source = opened(tmp_path, split="eval")
    truths, found, results = {}, {}, []
    for index in range(3):
        number, truth = source.truth(index)
        corner = rng.integers(0, 25, (30, 2))
        boxes = np.concatenate([corner, corner + rng.integers(1, 15, (30, 2))], axis=1)
        boxes[: len(truth.boxes)] = truth.boxes + rng.integers(0, 3, truth.boxes.shape)
        scores, labels = rng.random(30), np.concatenate([truth.labels, rng.integers(0, 3, 30 - len(truth.labels))])
        masks = [encode_mask(mask(*box[:2], *(box[2:] - box[:2]))) for box in boxes]
        truths[number], found[number] = truth, Detections(boxes, scores, labels, masks)
        for (x1, y1, x2, y2), score, label, rle in zip(boxes.tolist(), scores, labels, masks, strict=True):
            result = {"image_id": number, "category_id": (2, 7, 90)[label], "score": float(score)}
            shape = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            if kind == "mask":
                shape = {"segmentation": rle_to_json(rle)}
            results.append(result | shape)
    (tmp_path / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(tmp_path / "annotations" / "instances_val2017.json")
        evaluator = COCOeval(api, api.loadRes(str(tmp_path / "results.json")), "bbox" if kind == "box" else "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    metrics = average_precision(truths, found, num_classes=3, kind=kind).metrics
    assert [-1.0 if value is None else value for value in metrics.values()] == evaluator.stats.tolist()
    assert 0.02 < (metrics["ap"] or 0) < 0.9


def test_batches_come_from_a_folder(tmp_path: Path):
    write_coco(tmp_path)
    write_coco(tmp_path, split="test")
    config = DataConfig(folder=tmp_path, augment="flip")
    kind = DetectionImages(canvas=(64, 64), max_objects=4, masks=True)
    info = describe(config, kind)
    assert (info.train_size, info.eval_size, info.class_names) == (2, 3, ("cat", "dog", "bird"))
    with contextlib.closing(eval_batches(config, kind, batch_size=2)) as batches:
        found = list(batches)
    assert [batch["image_id"].tolist() for batch in found] == [[30, 10], [20, -1]]
    assert found[0]["size"].tolist() == [[51, 64]] * 2
    assert found[0]["original_size"].tolist() == [[HEIGHT, WIDTH]] * 2
    np.testing.assert_allclose(found[0]["boxes"][0, 0] * WIDTH / 64, [5, 6, 15, 14], rtol=0.01)


def test_what_takes_no_part_is_counted_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = instances()
    data["annotations"] += [
        annotation(11, 99, 2, (1, 1, 5, 5)),
        annotation(12, 30, 99, (1, 1, 5, 5)),
        annotation(13, 30, 99, (1, 1, 5, 5)),
        annotation(14, 30, 2, (-20, 1, 15, 5)),
        annotation(15, 30, 2, (1, 1, 0, 5)),
        annotation(16, 30, 2, (1, 1, 5, 5), area=0),
        annotation(17, 30, 2, (1, 1, -5, 5)),
        annotation(18, 30, 2, (1, 1, 5, 5), iscrowd=0, ignore=1),
    ]
    with caplog.at_level(logging.WARNING):
        source = opened(write_coco(tmp_path, data), Labels())
    assert caplog.messages == [
        f"left out of {source.name}: annotations of unknown images (1), annotations of unknown categories (2), boxes "
        "outside their image or of less than a pixel (4), images without an annotation or of less than 32 pixels (1)"
    ]
    assert (source[0] or {})["labels"].tolist() == [1, 0]
    truth = source.truth(0)[1]
    assert truth.labels.tolist() == [1, 0, 2, 0, 0, 0, 0, 0]
    assert truth.crowd.tolist() == [False, False, True, False, False, False, False, True]


def test_a_box_across_the_border_is_kept(tmp_path: Path):
    data = instances()
    data["annotations"][1]["bbox"] = [-5, 6, 10, 8]
    source = opened(write_coco(tmp_path, data), Labels())
    np.testing.assert_array_equal((source[0] or {})["boxes"][0], [-5, 6, 5, 14])


def test_empty_images_can_be_trained_on(tmp_path: Path):
    assert len(opened(write_coco(tmp_path), empty_images=True)) == 3


def test_unreadable_images_and_those_of_another_size_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_coco(tmp_path)
    Image.new("RGB", (WIDTH, HEIGHT - 1)).save(tmp_path / "train2017" / "030.png")
    with caplog.at_level(logging.WARNING):
        source = opened(tmp_path)
    assert source[0] is None
    assert source[1] is not None
    assert "39×50 pixels, not 40×50 as its annotations state" in caplog.text
    (tmp_path / "train2017" / "010.png").unlink()
    with pytest.raises(DataError, match=r"At most 50.00% of the 2 image files .* got 2 so far"):
        opened(tmp_path)


@pytest.mark.parametrize("stored", [True, False])
def test_an_image_is_turned_as_its_annotations_are(tmp_path: Path, stored: bool):
    """A JPEG of 40×50 pixels as stored, to be turned by 90° when it is shown."""
    data = instances()
    size = {"height": HEIGHT, "width": WIDTH} if stored else {"height": WIDTH, "width": HEIGHT}
    data["images"][0] |= size | {"file_name": "turned.jpg"}
    write_coco(tmp_path, data)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "train2017" / "turned.jpg", exif=exif)
    image = (opened(tmp_path, Labels())[0] or {})["image"]
    assert image.shape[:2] == (size["height"], size["width"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "must be in COCO's layout, annotations/instances_train2017.json and train2017/, got .*: 0 folders"),
        (["annotations/instances_val.json"], "`data.train_split` must be .* got 'train': there are val"),
        (["annotations/instances_train.json"], "must have the images of its annotations in train or images/train"),
        (
            ["annotations/instances_train2014.json", "annotations/instances_train2017.json"],
            "split train must be one, got train2014 and train2017",
        ),
    ],
)
def test_a_folder_of_another_layout_is_refused(tmp_path: Path, files: list[str], message: str):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(("semantic", "kind"), [(None, "instances"), ("stuff", "panoptic")])
def test_without_a_folder_one_line_states_what_to_pass(tmp_path: Path, semantic: Any, kind: str):
    config = DataConfig(folder=tmp_path / "coco", augment="flip")
    message = rf"annotations/{kind}_train2017.json .*/coco: no such folder. `--data.folder DIR` names another.$"
    with pytest.raises(UserError, match=message):
        open_source(config, DetectionImages(semantic=semantic), "train")


def test_other_classes_to_evaluate_on_are_refused(tmp_path: Path):
    write_coco(tmp_path)
    data = instances()
    data["categories"][0]["name"] = "horse"
    write_coco(tmp_path, data, split="val")
    with pytest.raises(UserError, match=r"must be the same, got 3 in .* and 3 in .* or other names"):
        describe(DataConfig(folder=tmp_path), DetectionImages())


def test_the_fingerprint_changes_with_annotations_and_images(tmp_path: Path):
    first = opened(write_coco(tmp_path)).fingerprint()
    assert opened(tmp_path).fingerprint() == first
    data = instances()
    data["annotations"][0]["bbox"][0] += 1
    second = opened(write_coco(tmp_path, data)).fingerprint()
    assert second["annotations"] != first["annotations"]
    assert second["images"] == first["images"]
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "train2017" / "030.png")
    assert opened(tmp_path).fingerprint()["images"] != first["images"]


def test_a_folder_of_instances_has_no_classes_of_pixels(tmp_path: Path):
    config = DataConfig(folder=write_coco(tmp_path), augment="flip")
    with pytest.raises(UserError, match=r"must be a split with annotations/panoptic_….json|COCO's layout"):
        open_source(config, DetectionImages(semantic="stuff"), "train")
    with pytest.raises(UserError, match="for classes of pixels, got instances"):
        opened(tmp_path, Labels(semantic="all"))
