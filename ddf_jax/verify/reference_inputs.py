"""The images, objects and labels of the detectors' references, drawn from a seed."""

from typing import NamedTuple

import numpy as np

SIZES = ((160, 224), (128, 192))
OBJECTS = (
    (((8, 12, 72, 92), 3), ((100, 20, 204, 148), 17), ((40, 84, 120, 156), 3), ((150, 100, 190, 132), 60)),
    (((16, 20, 96, 116), 0), ((110, 8, 182, 60), 42), ((60, 40, 92, 72), 17)),
)
IGNORED = 255
"""The semantic label of pixels that have none."""


class Truth(NamedTuple):
    """The objects of an image.

    Args:
        boxes: corners (x1, y1, x2, y2) in pixels [N, 4].
        labels: class of each object [N], from 0.
        masks: pixels of each object [N, H, W], bool, padded as the batch.
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


class ReferenceInputs(NamedTuple):
    """A batch of two images and what is known about them.

    Args:
        images: [B, H, W, 3] in float64, normalised, padded with 0 at the right and at the bottom.
        sizes: (height, width) of each image without padding.
        truths: of each image.
        semantic: classes of the pixels [B, H, W], `IGNORED` in the padding and where there is none.
    """

    images: np.ndarray
    sizes: tuple[tuple[int, int], ...]
    truths: tuple[Truth, ...]
    semantic: np.ndarray


def reference_inputs(seed: int, *, semantic_classes: int) -> ReferenceInputs:
    """The batch of a reference.

    An image is normal noise, brighter by 2 in one channel of each object's box. An object's mask is the ellipse that
    its box circumscribes. Semantic classes are squares of 16 pixels.

    Args:
        seed: of the reference; the weights are drawn from it too, the images from `seed` + 100.
        semantic_classes: number of the semantic labels.
    """
    generator = np.random.Generator(np.random.Philox(seed + 100))
    height, width = np.max(SIZES, axis=0)
    images = np.zeros((len(SIZES), height, width, 3))
    semantic = np.full((len(SIZES), height, width), IGNORED)
    for number, (size, objects) in enumerate(zip(SIZES, OBJECTS, strict=True)):
        image = generator.standard_normal((3, *size))
        for (x1, y1, x2, y2), label in objects:
            image[label % 3, y1:y2, x1:x2] += 2.0
        images[number, : size[0], : size[1]] = image.transpose(1, 2, 0)
        semantic[number, : size[0], : size[1]] = _semantic(number, size, semantic_classes)
    truths = tuple(
        Truth(
            np.array([box for box, _ in objects], np.float64),
            np.array([label for _, label in objects]),
            np.stack([_ellipse(box, (height, width)) for box, _ in objects]),
        )
        for objects in OBJECTS
    )
    return ReferenceInputs(images, SIZES, truths, semantic)


def _ellipse(box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The pixels [H, W] whose centres lie in the ellipse that a box circumscribes."""
    x1, y1, x2, y2 = box
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    dx, dy = (2 * x - (x1 + x2)) / (x2 - x1), (2 * y - (y1 + y2)) / (y2 - y1)
    return dx**2 + dy**2 <= 1


def _semantic(number: int, size: tuple[int, int], classes: int) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return np.where(y // 8 == 3, IGNORED, (x // 16 + 5 * (y // 16) + 7 * number) % classes)
