"""Random changes of colour."""

import dataclasses
from typing import Any

import grain
import numpy as np
from PIL import Image, ImageEnhance

from ddf_jax.data.crop import to_pillow

_KINDS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@dataclasses.dataclass(frozen=True)
class ColorJitter(grain.transforms.RandomMap):
    """Changes brightness, contrast, saturation and hue, in random order.

    Each of the first three is a blend `f · image + (1 - f) · d` with f uniform in [1 - `strength`, 1 + `strength`]: d
    is black for brightness, the mean grey for contrast, and the grey image for saturation. The hue is turned by a
    uniform share of the circle in ±`hue`; a grey image has none. As in torchvision's ColorJitter on pillow's images.
    """

    strength: float
    hue: float = 0.0

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        image = to_pillow(element["image"])
        low, high = 1.0 - self.strength, 1.0 + self.strength
        for kind in rng.permutation(len(_KINDS) + 1):
            if kind == len(_KINDS):
                image = _turned(image, rng.uniform(-self.hue, self.hue))
            elif self.strength:
                image = _KINDS[kind](image).enhance(rng.uniform(low, high))
        return element | {"image": image}


def _turned(image: Image.Image, share: float) -> Image.Image:
    """The image with its hue turned by a share of the circle, in steps of 1/256."""
    steps = int(share * 255)
    if image.mode == "L" or steps == 0:
        return image
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(number + steps) % 256 for number in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
