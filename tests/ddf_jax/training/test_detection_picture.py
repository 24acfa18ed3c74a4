"""The picture of an evaluation."""

import io
from typing import Any

import numpy as np
from PIL import Image

from ddf_jax.data.transforms import Normalize
from ddf_jax.training.tasks.detection import Detection
from tests.ddf_jax.training.bright_rectangles import CANVAS, INFO, find_rectangles, rectangle_image


def batch() -> dict[str, np.ndarray]:
    """Two images and a row of padding."""
    images = np.zeros((3, *CANVAS, 3), np.float32)
    sizes = np.array([(64, 96), (48, 64), CANVAS], np.int32)
    for image, (height, width) in zip(images, sizes, strict=True):
        example: Any = Normalize(3).map({"image": rectangle_image(height, width, (8, 8, 40, 24))})
        image[:height, :width] = example["image"]
    boxes = np.zeros((3, 5, 4), np.float32)
    boxes[:, 0] = 8, 8, 40, 24
    return {
        "image": images,
        "size": sizes,
        "mask": np.array([True, True, False]),
        "boxes": boxes,
        "labels": np.ones((3, 5), np.int32),
        "known": np.arange(5)[None] < np.array([1, 1, 0])[:, None],
    }


def test_objects_found_are_next_to_the_true_ones_a_row_for_each_real_example():
    of_all = batch()
    png = Detection(canvas=CANVAS, masks=True).draw(of_all, find_rectangles(of_all, masks=True), INFO)
    picture = np.asarray(Image.open(io.BytesIO(png)))
    assert picture.shape == (427 + 8 + 480, 2 * 640 + 8, 3)
    first, second = picture[:427], picture[435:]
    assert (first[:, 640:648] == 255).all()
    assert (picture[427:435] == 255).all()
    for panels in (first, second):
        found, true = panels[:, :640], panels[:, 648:]
        assert (found != true).any(-1).sum() > 5000  # the mask
        same = (found == true).all(-1)
        assert same[300:].all()  # below the object
