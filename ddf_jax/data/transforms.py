"""Image transforms as Grain wants them: small classes of one method, pure functions of (example, rng).

An example is a dict whose `"image"` is uint8 `[H, W, C]` until `Normalize` makes it float32. Resizing is pillow's
antialiased bilinear one, which is what torchvision does to images.
"""

import dataclasses
import math
from typing import Any

import grain
import numpy as np
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.errors import UserError

_CROP_MARGIN = (256, 224)  # ImageNet's evaluation: the shorter side to 256, then the centre 224
_SMALL = 96  # below this side (CIFAR, digits) nothing of an image is cut off in evaluation
_LONGEST = (
    16  # sides of a longer ratio are cut before they are resized: 1 × 100,000 pixels would become 256 × 25,600,000
)

# channels -> mean and standard deviation of pixels in [0, 1]. 3: ImageNet's customary ones; 1: the training images of
# `digits`, and good enough for another grey dataset, because a BatchNorm follows the first convolution.
_STATISTICS = {
    1: ((0.3058,), (0.3761,)),
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def training_transforms(config: DataConfig, channels: int) -> list[grain.transforms.Transformation]:
    """The augmentation that `config.augment` names, then normalisation.

    Raises:
        UserError: `config.augment` is unknown.
    """
    size = config.image_size
    augment = {
        "none": [ResizeAndCenterCrop(size)],
        "shift": [ResizeAndCenterCrop(size), RandomShift()],
        "affine": [ResizeAndCenterCrop(size), RandomAffine()],
        "imagenet": [RandomResizedCrop(size), RandomHorizontalFlip()],
    }
    if config.augment not in augment:
        raise UserError(f"`augment` must be one of {', '.join(augment)}, got {config.augment!r}.")
    return [*augment[config.augment], Normalize(channels)]


def evaluation_transforms(image_size: int, channels: int) -> tuple["ResizeAndCenterCrop", "Normalize"]:
    """The whole image, or its centre, without any chance."""
    return ResizeAndCenterCrop(image_size), Normalize(channels)


@dataclasses.dataclass(frozen=True)
class ResizeAndCenterCrop(grain.transforms.Map):
    """Shorter side to ⌊`size` · 256/224⌋ (below 96 pixels: to `size`), then the centre `size` × `size`."""

    size: int

    def map(self, element: dict[str, Any]) -> Any:
        image = element["image"]
        longest = _LONGEST * min(image.shape[:2])
        image = _centre(image, longest, longest)
        short = self.size if self.size < _SMALL else self.size * _CROP_MARGIN[0] // _CROP_MARGIN[1]
        height, width = (side * short // min(image.shape[:2]) for side in image.shape[:2])
        return element | {"image": _centre(_resize(image, height, width), self.size, self.size)}


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(grain.transforms.RandomMap):
    """A crop of random area and aspect ratio, resized to `size` × `size`.

    The area is uniform in `area` (a share of the image), the ratio width / height log-uniform in `ratio`. After ten
    tries that do not fit into the image, the largest centre crop whose ratio is allowed.

    Reference: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, Section 6, as in torchvision's
    RandomResizedCrop.
    """

    size: int
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        image = element["image"]
        top, left, height, width = self._box(image.shape[0], image.shape[1], rng)
        return element | {"image": _resize(image[top : top + height, left : left + width], self.size, self.size)}

    def _box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = height * width * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        h = min(height, round(width / self.ratio[0]))
        w = min(width, round(height * self.ratio[1]))
        return (height - h) // 2, (width - w) // 2, h, w


class RandomHorizontalFlip(grain.transforms.RandomMap):
    """Mirrors every other image, left to right."""

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        return element | {"image": element["image"][:, ::-1]} if rng.random() < 0.5 else element


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
        moved = _to_pillow(image).transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        return element | {"image": np.asarray(moved).reshape(image.shape)}


@dataclasses.dataclass(frozen=True)
class Normalize(grain.transforms.Map):
    """`(image / 255 - mean) / std` per channel, computed in float32."""

    channels: int

    def map(self, element: dict[str, Any]) -> Any:
        mean, std = np.array(_STATISTICS[self.channels], np.float32)
        image = element["image"].astype(np.float32)
        image /= np.float32(255)
        image -= mean
        image /= std
        return element | {"image": image}

    def undo(self, images: np.ndarray) -> np.ndarray:
        """Normalised images as pixels in [0, 1]."""
        mean, std = np.array(_STATISTICS[self.channels], np.float32)
        return np.clip(images * std + mean, 0, 1)


def _centre(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of an image, at most `height` × `width`."""
    top, left = (max(0, round((side - new) / 2)) for side, new in zip(image.shape, (height, width), strict=False))
    return image[top : top + height, left : left + width]


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`[H, W, C]` -> `[height, width, C]`, C = 1 or 3, uint8."""
    if image.shape[:2] == (height, width):
        return image
    resized = np.asarray(_to_pillow(image).resize((width, height), Image.Resampling.BILINEAR))
    return resized.reshape(height, width, image.shape[-1])


def _to_pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
