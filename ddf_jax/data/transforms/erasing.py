"""Random erasing."""

import dataclasses
import math
from typing import Any

import grain
import numpy as np

from ddf_jax.data.augmentation_config import EraseMode


@dataclasses.dataclass(frozen=True)
class RandomErasing(grain.transforms.RandomMap):
    """With a probability replaces a rectangle of a normalised image.

    Its area is uniform in `area` (a share of the image), its ratio height / width log-uniform in [0.3, 1 / 0.3]. After
    ten tries that are not smaller than the image, nothing is erased.

    Reference: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020; the ranges and modes are timm's.

    Args:
        probability: that there is a rectangle.
        mode: constant: zeros, the mean of the data. color: a number from the standard normal distribution for each
            channel. pixel: such a number for each pixel and channel.
        area: least and largest share.
    """

    probability: float
    mode: EraseMode = "pixel"
    area: tuple[float, float] = (0.02, 1 / 3)

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        if rng.random() >= self.probability:
            return element
        height, width, channels = element["image"].shape
        for _ in range(10):
            area = height * width * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h < height and 0 < w < width:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                shape = {"constant": (), "color": (channels,), "pixel": (h, w, channels)}[self.mode]
                image = element["image"].copy()
                noise = rng.standard_normal(shape, np.float32) if shape else np.float32(0)
                image[top : top + h, left : left + w] = noise
                return element | {"image": image}
        return element
