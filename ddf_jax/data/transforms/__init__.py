"""Image transforms as Grain wants them: small classes of one method, pure functions of (example, rng).

An example is a dict whose `"image"` is uint8 `[H, W, C]`, or pillow's image of these pixels (`Pixels`), until
`Normalize` makes it float32.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import grain
import numpy as np

from ddf_jax.data.augmentation_config import CropConfig
from ddf_jax.data.config import DataConfig
from ddf_jax.data.crop import to_array
from ddf_jax.data.registered_transforms import TRANSFORMS
from ddf_jax.data.transforms.color import ColorJitter
from ddf_jax.data.transforms.crops import RandomResizedCrop, ResizeAndCenterCrop
from ddf_jax.data.transforms.erasing import RandomErasing
from ddf_jax.data.transforms.geometry import RandomAffine, RandomHorizontalFlip, RandomShift, RandomVerticalFlip
from ddf_jax.data.transforms.normalization import Normalize
from ddf_jax.data.transforms.policies import AutoAugment, RandAugment
from ddf_jax.errors import UserError

__all__ = [
    "AutoAugment",
    "ColorJitter",
    "Normalize",
    "RandAugment",
    "RandomAffine",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomShift",
    "RandomVerticalFlip",
    "ResizeAndCenterCrop",
    "UserTransform",
    "evaluation_transforms",
    "training_transforms",
]

Transforms = list[grain.transforms.Transformation]


def training_transforms(config: DataConfig, channels: int) -> Transforms:
    """The augmentation that `config.augment` names, then that of `config.augmentation` and the user's own, and
    normalisation.

    Raises:
        UserError: `config.augment` or one of `config.transforms` is unknown, or an option has no effect with it.
    """
    size, crop = config.image_size, config.crop
    square = ResizeAndCenterCrop(size, config.eval_share, config.interpolation)
    augment: dict[str, Transforms] = {
        "none": [square],
        "shift": [square, RandomShift()],
        "affine": [square, RandomAffine()],
        "imagenet": [
            RandomResizedCrop(size, crop.area, crop.ratio, config.interpolation, crop.draft),
            RandomHorizontalFlip(crop.horizontal_flip),
            *([RandomVerticalFlip(crop.vertical_flip)] if crop.vertical_flip else []),
        ],
    }
    if config.augment not in augment:
        raise UserError(f"`augment` must be one of {', '.join(augment)}, got {config.augment!r}.")
    if config.augment != "imagenet" and crop != CropConfig():
        raise UserError(f"`data.crop` must be left out unless `augment` is imagenet, got {config.augment} and {crop}.")
    normalize = Normalize(channels, config.mean, config.std)
    return [*augment[config.augment], *_augmentation(config, normalize), normalize, *_erasing(config)]


def evaluation_transforms(config: DataConfig, channels: int) -> tuple[ResizeAndCenterCrop, Normalize]:
    """The whole image, or its centre, without any chance."""
    return (
        ResizeAndCenterCrop(config.eval_size, config.eval_share, config.interpolation),
        Normalize(channels, config.mean, config.std),
    )


@dataclasses.dataclass(frozen=True)
class UserTransform(grain.transforms.RandomMap):
    """A function that the user has registered.

    Raises:
        UserError: it returns something else than an image of the shape and type that it got.
    """

    name: str
    function: Callable[[np.ndarray, np.random.Generator], np.ndarray]

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        image = to_array(element["image"])
        changed = self.function(image, rng)
        if not isinstance(changed, np.ndarray) or (changed.shape, changed.dtype) != (image.shape, image.dtype):
            found = f"{changed.dtype} {changed.shape}" if isinstance(changed, np.ndarray) else type(changed).__name__
            raise UserError(
                f"The transform {self.name!r} must return an image as it gets it, {image.dtype} {image.shape}, got "
                f"{found}."
            )
        return element | {"image": changed}


def _augmentation(config: DataConfig, normalize: Normalize) -> Transforms:
    """What is done to the pixels."""
    options = config.augmentation
    transforms: Transforms = []
    fill = tuple(min(255, round(255 * value)) for value in normalize.mean)
    if options.rand_augment.layers:
        transforms.append(RandAugment(options.rand_augment, fill, config.interpolation))
    if options.auto_augment:
        transforms.append(AutoAugment(fill, config.interpolation))
    if options.color_jitter or options.hue_jitter:
        transforms.append(ColorJitter(options.color_jitter, options.hue_jitter))
    return transforms + [UserTransform(str(name), TRANSFORMS.get(name)) for name in config.transforms]


def _erasing(config: DataConfig) -> Transforms:
    options = config.augmentation
    return [RandomErasing(options.erase, options.erase_mode)] if options.erase else []
