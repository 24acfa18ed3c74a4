"""Flips and small movements of whole images."""

import dataclasses
import math
from typing import Any

import grain
import numpy as np
from PIL import Image

from ddf_jax.data.crop import to_array, to_pillow


@dataclasses.dataclass(frozen=True)
class RandomHorizontalFlip(grain.transforms.RandomMap):
    """Exchanges left and right with a probability."""

    probability: float = 0.5

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        if rng.random() >= self.probability:
            return element
        image = element["image"]
        if isinstance(image, Image.Image):
            return element | {"image": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)}
        return element | {"image": image[:, ::-1]}


@dataclasses.dataclass(frozen=True)
class RandomVerticalFlip(grain.transforms.RandomMap):
    """Exchanges top and bottom with a probability."""

    probability: float = 0.5

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        return element | {"image": to_array(element["image"])[::-1]} if rng.random() < self.probability else element


@dataclasses.dataclass(frozen=True)
class RandomShift(grain.transforms.RandomMap):
    """Moves the image by up to `share` of its side each way, in both axes; black comes in at the border."""

    share: float = 1 / 8

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        image = element["image"]
        height, width, channels = image.shape
        y, x = round(self.share * height), round(self.share * width)
        padded = np.zeros((height + 2 * y, width + 2 * x, channels), image.dtype)
        padded[y : y + height, x : x + width] = image
        top, left = rng.integers(2 * y + 1), rng.integers(2 * x + 1)
        return element | {"image": padded[top : top + height, left : left + width]}


@dataclasses.dataclass(frozen=True)
class RandomAffine(grain.transforms.RandomMap):
    """Turns, scales and moves the image about its centre, bilinearly; black comes in at the border.

    The angle is uniform in ±`degrees` (clockwise), the factor log-uniform in [1 / `scale`, `scale`], and each axis
    moves by up to `share` of its side, by fractions of a pixel too.
    """

    degrees: float = 8.0
    scale: float = 1.08
    share: float = 1 / 16

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        image = element["image"]
        height, width = image.shape[:2]
        angle = math.radians(rng.uniform(-self.degrees, self.degrees))
        factor = math.exp(rng.uniform(-1.0, 1.0) * math.log(self.scale))
        y, x = rng.uniform(-self.share, self.share, 2) * (height, width)
        # Pillow asks where in the image each pixel of the result comes from: the inverse map.
        cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
        centre = (width / 2, height / 2)
        left = centre[0] - cos * (centre[0] + x) - sin * (centre[1] + y)
        top = centre[1] + sin * (centre[0] + x) - cos * (centre[1] + y)
        matrix = (cos, sin, left, -sin, cos, top)
        moved = to_pillow(image).transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        return element | {"image": to_array(moved)}
