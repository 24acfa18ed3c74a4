"""Folders with COCO's panoptic JSON and PNG files: what is read, left out and refused."""

import contextlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddf_jax.analysis.panoptic_quality import PanopticQuality
from ddf_jax.data.coco_folder import CocoOptions
from ddf_jax.data.coco_panoptic import CocoPanoptic
from ddf_jax.data.config import DataConfig
from ddf_jax.data.detection_source import Labels
from ddf_jax.data.examples import DetectionImages
from ddf_jax.data.pipeline import train_iterator
from ddf_jax.data.sources import open_source
from ddf_jax.detection.rle import decode_rle
from ddf_jax.errors import DataError
from tests.ddf_jax.data.coco_files import HEIGHT, WIDTH, panoptic, write_coco, write_panoptic

CAT, DOG, SKY, GRASS = range(4)
"""Classes: things in the order of their category ids (cat 2, dog 7), then stuff (sky 4, grass 9)."""


def opened(folder: Path, labels: Labels = Labels(masks=True, semantic="all")) -> CocoPanoptic:  # noqa: B008
    return CocoPanoptic(folder, "train", labels, CocoOptions(max_corrupt_share=0.5))


def test_objects_are_the_things_that_are_no_crowd_and_have_a_pixel(tmp_path: Path):
    source, ids = opened(write_panoptic(tmp_path)), panoptic()[1][30]
    assert (source.class_names, source.stuff_names) == (("cat", "dog"), ("sky", "grass"))
    example = source[0] or {}
    assert example["image_id"] == 30
    assert example["labels"].tolist() == [DOG, CAT]
    np.testing.assert_array_equal(example["boxes"], [[10, 5, 20, 15], [0, 30, 5, HEIGHT]])
    np.testing.assert_array_equal(example["masks"], [ids == 300, ids == 9])
    expected = np.full((HEIGHT, WIDTH), GRASS)
    expected[ids == 0], expected[ids == 9], expected[(ids == 300) | (ids == 301)] = 255, CAT, DOG
    np.testing.assert_array_equal(example["semantic"], expected)
    assert {name: str(values.dtype) for name, values in example.items()} == {
        "image": "uint8",
        "image_id": "int32",
        "boxes": "float32",
        "labels": "int32",
        "masks": "bool",
        "semantic": "uint8",
    }


def test_a_map_of_stuff_has_all_things_as_the_class_after_the_last(tmp_path: Path):
    ids = panoptic()[1][30]
    semantic = (opened(write_panoptic(tmp_path), Labels(semantic="stuff"))[0] or {})["semantic"]
    np.testing.assert_array_equal(semantic, np.select([ids == 0, ids == 70_000], [255, GRASS - 2], 2))


def test_the_truth_has_the_crowd(tmp_path: Path):
    source, ids = opened(write_panoptic(tmp_path)), panoptic()[1][30]
    number, truth = source.truth(0)
    assert number == 30
    assert truth.labels.tolist() == [DOG, DOG, CAT]
    assert truth.crowd.tolist() == [False, True, False]
    assert truth.areas.tolist() == [100, 40, 50]
    np.testing.assert_array_equal(decode_rle(truth.masks[1], truth.size), ids == 301)
    segments = source.segments(0)[1]
    np.testing.assert_array_equal(segments.ids, ids)
    assert segments.numbers.tolist() == [300, 301, 9, 70_000]
    assert segments.labels.tolist() == [DOG, DOG, CAT, GRASS]
    quality = PanopticQuality(2, 4)
    quality.add(segments._replace(crowd=None), segments)
    assert quality.scores()["all"] == (1.0, 1.0, 1.0, 3)


def test_pixels_of_unknown_ids_and_categories_are_void(tmp_path: Path):
    data, ids = panoptic()
    first = data["annotations"][0]["segments_info"]
    first[1]["category_id"] = 99  # the dog
    del first[3]  # the cat
    segments = opened(write_panoptic(tmp_path, data)).segments(0)[1]
    expected = np.where(np.isin(ids[30], (300, 9)), 0, ids[30])
    np.testing.assert_array_equal(segments.ids, expected)
    assert segments.numbers.tolist() == [301, 70_000]


def test_images_without_an_annotation_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = panoptic()[0]
    data["annotations"][1]["image_id"] = 11
    with caplog.at_level(logging.WARNING):
        source = opened(write_panoptic(tmp_path, data))
    assert len(source) == 1
    assert "1 annotations of unknown images, 1 images without an annotation" in caplog.text


def test_a_panoptic_folder_makes_batches(tmp_path: Path):
    config = DataConfig(folder=write_coco(write_panoptic(tmp_path)), augment="flip")
    kind = DetectionImages(canvas=(64, 64), max_objects=4, semantic="stuff")
    assert isinstance(open_source(config, kind, "train"), CocoPanoptic)
    with contextlib.closing(train_iterator(config, kind, batch_size=2, seed=0)) as iterator:
        batch = next(iterator)
    assert batch["semantic"].shape == (2, 64, 64)
    assert {*np.unique(batch["semantic"]).tolist()} == {1, 2, 255}


@pytest.mark.parametrize("damage", ["missing", "torn", "another size"])
def test_a_png_that_does_not_fit_is_an_error_that_names_it(tmp_path: Path, damage: str):
    source = opened(write_panoptic(tmp_path))
    file = tmp_path / "annotations" / "panoptic_train2017" / "030.png"
    match damage:
        case "missing":
            file.unlink()
        case "torn":
            file.write_bytes(file.read_bytes()[:-50])
        case _:
            Image.new("RGB", (WIDTH, HEIGHT + 1)).save(file)
    with pytest.raises(DataError, match=r"030.png") as caught:
        source[0]
    assert len(str(caught.value).splitlines()) == 1


def annotation(index: int, **values: Any) -> Any:
    return lambda data: data["annotations"][index].update(values)


def segment(**values: Any) -> Any:
    return lambda data: data["annotations"][0]["segments_info"][1].update(values)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data["categories"][0].pop("isthing"), "category 9 must have `isthing`, 0 or 1"),
        (lambda data: [each.update(isthing=0) for each in data["categories"]], "must have a category of things"),
        (annotation(0, segments_info=[{"id": 5}]), "annotation of image 30 must have `segments_info`"),
        (annotation(0, segments_info=3), "annotation of image 30 must have `segments_info`"),
        (segment(id=9), "an `id` of their own, got one twice"),
        (segment(id=2**24), "segment 16777216 must have an `id`"),
        (segment(category_id="7"), "segment 300 must have a whole number as `category_id`"),
        (annotation(0, file_name="../x.png"), "annotation of image 30 must have a `file_name`"),
        (annotation(1, image_id=30), r"image with an annotation must have .* got 30 twice"),
        (lambda data: data["annotations"].append({"image_id": 30}), "`annotations` with `segments_info`"),
        (lambda data: data.update(info=data["annotations"][0]), "in `annotations` alone"),
        (lambda data: data.update(annotations=[]), "must have an annotation of one of its images, got none"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path: Path, edit: Any, message: str):
    data = panoptic()[0]
    edit(data)
    with pytest.raises(DataError, match=message) as caught:
        opened(write_panoptic(tmp_path, data))
    assert "panoptic_train2017.json" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_of_instances_is_refused(tmp_path: Path):
    write_panoptic(tmp_path)
    (tmp_path / "annotations" / "panoptic_train2017.json").write_bytes(
        (write_coco(tmp_path) / "annotations" / "instances_train2017.json").read_bytes()
    )
    with pytest.raises(DataError, match="must have `annotations` with `segments_info`"):
        opened(tmp_path)
