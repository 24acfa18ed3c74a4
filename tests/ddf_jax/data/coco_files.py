"""Small folders in COCO's layout."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddf_jax.data.coco_folder import CocoInstances, CocoOptions
from ddf_jax.data.detection_source import Labels
from ddf_jax.data.panoptic import ids_to_rgb

HEIGHT, WIDTH = 40, 50
LYING, UPRIGHT = (40, 60), (60, 40)
MASKS = Labels(masks=True)
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 90, "name": "bird"}]
"""Classes: cat, dog, bird."""


def opened(folder: Path, labels: Labels = MASKS, split: Any = "train", **options: Any) -> CocoInstances:
    """The examples of a split; an image in two may be unreadable."""
    return CocoInstances(folder, split, labels, CocoOptions(max_corrupt_share=0.5, **options))


def mask(x: int, y: int, width: int, height: int) -> np.ndarray:
    """A rectangle as a mask."""
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    drawn[y : y + height, x : x + width] = True
    return drawn


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def annotation(number: int, image: int, category: int, box: tuple[float, float, float, float], **more: Any) -> dict:
    """One with a rectangle as its mask."""
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": 0,
        "segmentation": [rectangle(*box)],
    } | more


def instances() -> dict[str, Any]:
    """Three images, the last one empty. The first has a dog, a cat and a crowd of birds; the second a dog."""
    runs = {"counts": [0, HEIGHT * 10, HEIGHT * (WIDTH - 10)], "size": [HEIGHT, WIDTH]}  # the first ten columns
    return {
        "info": {"description": "a test"},
        "images": [
            {"id": number, "file_name": f"{number:03d}.png", "height": HEIGHT, "width": WIDTH}
            for number in (30, 10, 20)
        ],
        "annotations": [
            annotation(5, 10, 7, (20.0, 10.0, 6.0, 4.0)),
            annotation(1, 30, 7, (5.0, 6.0, 10.0, 8.0)),
            annotation(2, 30, 2, (20.5, 10.25, 20.0, 20.0)),
            annotation(3, 30, 90, (0, 0, 10, HEIGHT), iscrowd=1, segmentation=runs),
        ],
        "categories": copy.deepcopy(CATEGORIES),
    }


def write_images(folder: Path, data: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for each in data["images"]:
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), each["id"], np.uint8)).save(folder / f"{each['id']:03d}.png")


def write_coco(folder: Path, data: dict[str, Any] | str | None = None, split: str = "train2017") -> Path:
    """A folder with the images of `instances` and the annotations `data`."""
    write_images(folder / split, instances())
    (folder / "annotations").mkdir(exist_ok=True)
    text = data if isinstance(data, str) else json.dumps(instances() if data is None else data)
    (folder / "annotations" / f"instances_{split}.json").write_text(text)
    return folder


def write_sized(folder: Path, split: str, sizes: Sequence[tuple[int, int]]) -> None:
    """A split of images with these heights and widths and one dog each."""
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images = [
        {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        for number, (height, width) in enumerate(sizes)
    ]
    for image in images:
        pixels = np.full((image["height"], image["width"], 3), 9 * image["id"], np.uint8)
        Image.fromarray(pixels).save(folder / split / image["file_name"])
    objects = [annotation(number, number, 7, (5.0, 6.0, 20.0, 10.0)) for number in range(len(images))]
    data = {"images": images, "annotations": objects, "categories": CATEGORIES}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(data))


def panoptic() -> tuple[dict[str, Any], dict[int, np.ndarray]]:
    """Two images, 30 with a dog, a crowd of dogs, a cat, grass and void; 10 with grass alone. And their ids."""
    categories = [
        {"id": 9, "name": "grass", "isthing": 0},
        {"id": 7, "name": "dog", "isthing": 1},
        {"id": 4, "name": "sky", "isthing": 0},
        {"id": 2, "name": "cat", "isthing": 1},
    ]
    ids = np.full((HEIGHT, WIDTH), 70_000)
    ids[5:15, 10:20], ids[5:15, 20:24], ids[30:, :5], ids[:2] = 300, 301, 9, 0
    segments = [(70_000, 9, 0), (300, 7, 0), (301, 7, 1), (9, 2, 0), (12, 2, 0)]  # the last one has no pixel
    first = [{"id": number, "category_id": category, "iscrowd": crowd} for number, category, crowd in segments]
    return {
        "images": instances()["images"][:2],
        "annotations": [
            {"image_id": 30, "file_name": "030.png", "segments_info": first},
            {"image_id": 10, "file_name": "010.png", "segments_info": [{"id": 5, "category_id": 9, "iscrowd": 0}]},
        ],
        "categories": categories,
    }, {30: ids, 10: np.full((HEIGHT, WIDTH), 5)}


def write_panoptic(folder: Path, data: dict[str, Any] | None = None, split: str = "train2017") -> Path:
    """A folder with the images and PNG files of `panoptic` and the annotations `data`."""
    usual, ids = panoptic()
    write_images(folder / split, usual)
    segments = folder / "annotations" / f"panoptic_{split}"
    segments.mkdir(parents=True, exist_ok=True)
    for number, each in ids.items():
        Image.fromarray(ids_to_rgb(each)).save(segments / f"{number:03d}.png")
    (folder / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(usual if data is None else data))
    return folder
