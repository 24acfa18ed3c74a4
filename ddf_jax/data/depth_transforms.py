"""From an image with depth to the inputs of depth upsampling: the image, depth of lower resolution, and the truth.

An example is `{"image": uint8 [H, W, 3], "depth": float32 [H, W]}` until `Downsample` makes it
`{"image": float32 [H, W, 3] in [0, 1], "low": float32 [⌈H/s⌉, ⌈W/s⌉, 1], "depth": float32 [H, W, 1]}`, s the scale and
depth in metres, 0 in holes.
"""

import dataclasses
from typing import Any

import grain
import numpy as np

from ddf_jax.data.config import DataConfig
from ddf_jax.errors import UserError


def depth_training_transforms(
    config: DataConfig, shape: tuple[int, int], scale: int
) -> list[grain.transforms.Transformation]:
    """What `config.augment` names, then the lower resolution.

    Raises:
        UserError: the augmentation is not one for depth, or the crop is larger than the images, which are `shape`.
    """
    if config.image_size > min(shape):
        raise UserError(f"`image_size` must be at most the images' {shape[0]}×{shape[1]}, got {config.image_size}.")
    crop, downsample = RandomCropAndFlip(config.image_size), Downsample(scale)
    augment = {"crop": [crop, downsample], "holes": [crop, downsample, RandomHoles()]}
    if config.augment not in augment:
        raise UserError(f"`augment` must be one of {', '.join(augment)} for depth, got {config.augment!r}.")
    return augment[config.augment]


def nearest_downsample(depth: np.ndarray, scale: int) -> np.ndarray:
    """Depth [H, W] to [⌈H/s⌉, ⌈W/s⌉]: of each s×s block the pixel `s // 2` from its corner, or the last there is.

    >>> nearest_downsample(np.arange(5.0)[None], 2)
    array([[1., 3., 4.]])
    """
    rows, columns = (np.minimum(np.arange(0, size, scale) + scale // 2, size - 1) for size in depth.shape)
    return depth[rows[:, None], columns]


@dataclasses.dataclass(frozen=True)
class RandomCropAndFlip(grain.transforms.RandomMap):
    """A square of `size` pixels, mirrored every other time."""

    size: int

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        height, width = element["depth"].shape
        top, left = rng.integers(height - self.size + 1), rng.integers(width - self.size + 1)
        step = -1 if rng.random() < 0.5 else 1
        crop = {name: element[name][top : top + self.size, left : left + self.size][:, ::step] for name in _MAPS}
        return element | crop


@dataclasses.dataclass(frozen=True)
class Downsample(grain.transforms.Map):
    """Adds `low` by `nearest_downsample`, and gives all arrays channels and float32."""

    scale: int

    def map(self, element: dict[str, Any]) -> Any:
        low = nearest_downsample(element["depth"], self.scale)[..., None]
        image = element["image"].astype(np.float32) / np.float32(255)
        return element | {"image": image, "low": low, "depth": element["depth"][..., None]}


@dataclasses.dataclass(frozen=True)
class RandomHoles(grain.transforms.RandomMap):
    """Takes what was measured out of `low` in `share` of the examples: scattered pixels and up to three rectangles.

    The truth stays, so that a network learns to fill the holes.
    """

    share: float = 0.2

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        if rng.random() >= self.share:
            return element
        low = element["low"].copy()
        height, width = low.shape[:2]
        low[rng.random((height, width)) < rng.uniform(0, 0.1)] = 0
        for _ in range(rng.integers(4)):
            top, left = rng.integers(height), rng.integers(width)
            low[top : top + rng.integers(1, 5), left : left + rng.integers(1, 5)] = 0
        return element | {"low": low}


_MAPS = ("image", "depth")
