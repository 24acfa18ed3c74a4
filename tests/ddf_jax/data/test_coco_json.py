"""COCO's JSON of instances: what is refused, and that nothing but errors of one line comes of what is damaged."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ddf_jax.data.coco_folder import CocoInstances, CocoOptions
from ddf_jax.data.coco_panoptic import CocoPanoptic
from ddf_jax.data.detection_source import Labels
from ddf_jax.data.detection_transforms import PadObjects, ResizeToFit, flip
from ddf_jax.errors import DataError, UserError
from tests.ddf_jax.data.coco_files import instances, panoptic, write_coco, write_panoptic

ODD: list[Any] = [
    None, True, 0, -1, 3.5, 1e308, float("nan"), float("inf"), -1e12, 10**30, 2**63, "", "x", "../a", "\ud800",
    "y" * 300, [], {}, [[]], [None], {"id": 3}, {"counts": [1], "size": [40, 50]}, [1, 2, 3, 4], [[1, 2, 3, 4, 5, 6]],
    {"counts": "abc", "size": [40, 50]}, {"counts": "oooooooo0", "size": [40, 50]},
]  # fmt: skip


def opened(folder: Path) -> CocoInstances:
    return CocoInstances(folder, "train", Labels(), CocoOptions())


def without(name: str) -> Any:
    return lambda data: data.pop(name)


def change(table: str, index: int, **values: Any) -> Any:
    return lambda data: data[table][index].update(values)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("images"), "must have a list `images` as COCO's files, got annotations, categories, info"),
        (without("annotations"), "must have a list `annotations`"),
        (without("categories"), "must have a list `categories`"),
        (lambda data: data.update(images=[]), "must have an image, got none"),
        (lambda data: data.update(categories=[]), "must have a category, got none"),
        (lambda data: data["images"].append(3), "every image must be a JSON object, got 3"),
        (change("images", 1, id=30), "every image must have an `id` of its own, got 30 twice"),
        (change("images", 1, id="10"), "image '10' must have a whole number as `id`, got '10'"),
        (change("images", 1, id=True), "image True must have a whole number as `id`"),
        (change("images", 1, id=2**31), "must have an `id` from 0 to 2³¹ - 1, got 2147483648"),
        (change("images", 1, height=0), "image 10 must have 1 to `data.max_pixels` = 89478485 pixels, got 0×50"),
        (change("images", 1, height=10**9), "image 10 must have 1 to .* got 1000000000×50"),
        (change("images", 1, width=50.5), "image 10 must have a whole number as `width`, got 50.5"),
        (change("images", 1, file_name="../10.png"), "image 10 must have a `file_name` below the folder of images"),
        (change("images", 1, file_name="/etc/hosts"), "image 10 must have a `file_name` below the folder of images"),
        (change("images", 1, file_name="a" * 300), "image 10 must have a `file_name` below the folder of images"),
        (change("images", 1, file_name="\ud800"), "image 10 must have a `file_name` below the folder of images"),
        (change("images", 1, file_name=None), "image 10 must have a `file_name` below .* got None"),
        (change("categories", 1, id=7), "category 7 must have an `id` of its own, got one twice"),
        (change("categories", 1, name=3), "category 2 must have a `name`, got 3"),
        (change("annotations", 1, id=5), "every annotation must have an `id` of its own, got 5 twice"),
        (change("annotations", 1, bbox=[1, 2, 3]), r"annotation 1 must have 4 numbers .* as `bbox`, got \[1, 2, 3\]"),
        (change("annotations", 1, bbox=[1, 2, 3, None]), "annotation 1 must have 4 numbers"),
        (change("annotations", 1, bbox=[1, 2, 3, float("inf")]), "annotation 1 must have 4 numbers"),
        (change("annotations", 1, bbox=[1, 2, 3, 1e12]), "annotation 1 must have 4 numbers"),
        (change("annotations", 1, area="12"), "annotation 1 must have a number below 10⁹ as `area`, got '12'"),
        (change("annotations", 1, image_id=2**70), "annotation 1 must have a whole number as `image_id`"),
        (lambda data: data["annotations"][1].pop("bbox"), "annotations with `image_id`, `category_id` and `bbox`, got"),
        (lambda data: data.update(info=data["annotations"][0]), "in `annotations` alone, got some elsewhere"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path: Path, edit: Any, message: str):
    data = instances()
    edit(data)
    with pytest.raises(DataError, match=message) as caught:
        opened(write_coco(tmp_path, data))
    assert "instances_train2017.json" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(instances())[:500], r"must be a JSON file in COCO's form, got .*line 1 column"),
        ("", "must be a JSON file in COCO's form, got Expecting value"),
        ("[" * 100_000, "must be a JSON file in COCO's form"),
        ('{"images": ' + "9" * 5000 + "}", "must be a JSON file in COCO's form"),
        ("[]", "must hold a JSON object, got a list"),
    ],
)
def test_what_is_no_json_object_is_refused_in_one_line(tmp_path: Path, text: str, message: str):
    with pytest.raises(DataError, match=message) as caught:
        opened(write_coco(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 1


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys and positions that lead to every part of a value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*above, key)
        yield from places(value[key], (*above, key))


def damage(data: Any, rng: random.Random) -> None:
    """Takes a part out, repeats it or replaces it with something odd."""
    *above, last = rng.choice([*places(data)])
    for key in above:
        data = data[key]
    kind = rng.random()
    if kind < 0.2:
        del data[last]
    elif kind < 0.3 and isinstance(data, list):
        data.append(copy.deepcopy(data[last]))
    else:
        data[last] = copy.deepcopy(rng.choice(ODD))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(600))
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, seed: int):
    rng, is_panoptic = random.Random(seed), seed % 3 == 0
    data = panoptic()[0] if is_panoptic else instances()
    for _ in range(rng.choice([1, 1, 2, 4])):
        damage(data, rng)
    (write_panoptic if is_panoptic else write_coco)(tmp_path, data)
    options, message = CocoOptions(max_corrupt_share=1, empty_images=True), ""
    try:
        if is_panoptic:
            source = CocoPanoptic(tmp_path, "train", Labels(masks=True, semantic="all"), options)
        else:
            source = CocoInstances(tmp_path, "train", Labels(masks=True), options)
        for index in range(len(source)):
            source.truth(index)
            example = source[index]
            if example is not None:
                PadObjects((64, 64), 5).map(flip(ResizeToFit(64, 64, (64, 64)).map(example)))
    except UserError as error:
        message = str(error)
    assert "\n" not in message
