"""The parts of a recipe that decide how a labelled training image is cropped and changed. All are off by default."""

import dataclasses
import math
from typing import Literal, get_args

from ddf_jax.errors import UserError

EraseMode = Literal["constant", "color", "pixel"]


@dataclasses.dataclass(frozen=True)
class CropConfig:
    """The random crop and flips of `augment` imagenet."""

    area: tuple[float, float] = (0.08, 1.0)
    """Least and largest share of the image that a crop covers."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest width / height of a crop."""
    horizontal_flip: float = 0.5
    """Probability that left and right are exchanged."""
    vertical_flip: float = 0.0
    """Probability that top and bottom are exchanged."""
    draft: bool = False
    """Decode a JPEG at 1/2, 1/4 or 1/8 of its size where the crop still has the pixels of `image_size`: faster for
    large images, and a little different in each pixel. Evaluation never does."""

    def __post_init__(self) -> None:
        _check_interval("area", self.area, 1.0)
        _check_interval("ratio", self.ratio, math.inf)
        _check_shares(self, "horizontal_flip", "vertical_flip")


@dataclasses.dataclass(frozen=True)
class RandAugmentConfig:
    """RandAugment: some operations, drawn anew for each image. timm's `rand-m6-mstd0.5-inc1` is 2, 6, 0.5, true."""

    layers: int = 0
    """Operations drawn for an image, each of which is applied with probability 1/2; 0: off."""
    magnitude: float = 9.0
    """Strength, from 0 to 10."""
    magnitude_std: float = 0.0
    """Standard deviation of the strength, drawn for each operation."""
    increasing: bool = False
    """Whether a higher strength means a larger change in every operation. In the paper it does not in some."""

    def __post_init__(self) -> None:
        if self.layers < 0:
            raise UserError(f"`layers` must be a number of operations, 0 for none, got {self.layers}.")
        if not 0.0 <= self.magnitude <= 10.0:
            raise UserError(f"`magnitude` must be in [0, 10], got {self.magnitude}.")
        if not 0.0 <= self.magnitude_std < math.inf:
            raise UserError(f"`magnitude_std` must be a number from 0 on, got {self.magnitude_std}.")


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """What is done to a labelled training image after `augment`, in this order."""

    rand_augment: RandAugmentConfig = dataclasses.field(default_factory=RandAugmentConfig)
    auto_augment: bool = False
    """AutoAugment: one of the 25 sub-policies that were found for ImageNet."""
    color_jitter: float = 0.0
    """x: brightness, contrast and saturation are each multiplied by a number in [1 - x, 1 + x]."""
    hue_jitter: float = 0.0
    """x: the hue is turned by up to this share of the circle, at most 1/2."""
    erase: float = 0.0
    """Probability that a rectangle is erased (random erasing)."""
    erase_mode: EraseMode = "pixel"
    """What takes its place, after normalisation: zeros, normal noise of one colour, or normal noise in each pixel."""

    def __post_init__(self) -> None:
        _check_shares(self, "color_jitter", "erase")
        if not 0.0 <= self.hue_jitter <= 0.5:
            raise UserError(f"`hue_jitter` must be in [0, 0.5], got {self.hue_jitter}.")
        if self.erase_mode not in get_args(EraseMode):
            raise UserError(f"`erase_mode` must be one of {', '.join(get_args(EraseMode))}, got {self.erase_mode!r}.")
        if self.auto_augment and self.rand_augment.layers:
            raise UserError("`auto_augment` must be off where `rand_augment.layers` is not 0: choose one of the two.")


def _check_interval(name: str, interval: tuple[float, ...], most: float) -> None:
    if len(interval) != 2 or not 0.0 < interval[0] <= interval[1] <= most or interval[1] == math.inf:
        above = "" if most == math.inf else f" of at most {most:g}"
        raise UserError(f"`{name}` must be two positive numbers{above}, the smaller one first, got {interval}.")


def _check_shares(config: object, *names: str) -> None:
    for name in names:
        if not 0.0 <= getattr(config, name) <= 1.0:
            raise UserError(f"`{name}` must be in [0, 1], got {getattr(config, name)}.")
