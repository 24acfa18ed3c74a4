"""Crops that become squares of one size."""

import dataclasses
import math
from typing import Any

import grain
import numpy as np
from PIL import Image

from ddf_jax.data.config import Interpolation
from ddf_jax.data.crop import Box, Crop, resize

_EVAL_SHARE = 224 / 256  # ImageNet's evaluation: the shorter side to 256, then the centre 224
_SMALL = 96  # below this side (CIFAR, digits) nothing of an image is cut off in evaluation
_LONGEST = (
    16  # sides of a longer ratio are cut before they are resized: 1 × 100,000 pixels would become 256 × 25,600,000
)
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclasses.dataclass(frozen=True)
class ResizeAndCenterCrop(grain.transforms.Map):
    """Shorter side to ⌊`size` / `share`⌋, then the centre `size` × `size`.

    Args:
        size: side of the square.
        share: of the shorter side that is left; default: 224/256, below 96 pixels 1.
        interpolation: where it is random, bicubic.
    """

    size: int
    share: float | None = None
    interpolation: Interpolation = "bilinear"

    def map(self, element: dict[str, Any]) -> Any:
        image = element["image"]
        longest = _LONGEST * min(image.shape[:2])
        image = _centre(image, longest, longest)
        short = int(self.size / (self.share or (1.0 if self.size < _SMALL else _EVAL_SHARE)))
        height, width = (side * short // min(image.shape[:2]) for side in image.shape[:2])
        resampling = _FILTERS.get(self.interpolation, Image.Resampling.BICUBIC)
        return element | {"image": _centre(resize(image, height, width, resampling), self.size, self.size)}


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(grain.transforms.RandomMap):
    """A crop of random area and aspect ratio, resized to `size` × `size`.

    The area is uniform in `area` (a share of the image), the ratio width / height log-uniform in `ratio`. After ten
    tries that do not fit into the image, the largest centre crop whose ratio is allowed.

    Reference: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, Section 6, as in torchvision's
    RandomResizedCrop.

    Args:
        size: side of the square.
        area: least and largest share.
        ratio: least and largest ratio.
        interpolation: random: bilinear and bicubic are equally likely.
        draft: as `Crop` has it.
    """

    size: int
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    draft: bool = False

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        return element | {"image": self.crop(rng).of_array(element["image"])}

    def crop(self, rng: np.random.Generator) -> Crop:
        """The crop of one image. The generator is asked for the box when the image's size is known."""
        resampling = draw_filter(self.interpolation, rng)
        state, is_drawn = rng.bit_generator.state, False

        def box(height: int, width: int) -> Box:
            nonlocal is_drawn
            if is_drawn:  # the same again
                rng.bit_generator.state = state
            is_drawn = True
            return self._box(height, width, rng)

        return Crop(box, self.size, resampling, self.draft)

    def _box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        for _ in range(10):
            area = height * width * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return Box(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
        h = min(height, round(width / self.ratio[0]))
        w = min(width, round(height * self.ratio[1]))
        return Box((height - h) // 2, (width - w) // 2, h, w)


def draw_filter(interpolation: Interpolation, rng: np.random.Generator) -> Image.Resampling:
    """Pillow's filter; where it is random, one of the two."""
    if interpolation == "random":
        interpolation = "bicubic" if rng.random() < 0.5 else "bilinear"
    return _FILTERS[interpolation]


def _centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of an image, at most `height` × `width`."""
    top, left = (max(0, round((side - new) / 2)) for side, new in zip(image.shape, (height, width), strict=False))
    return image[top : top + height, left : left + width]
