"""The part of a recipe that the data pipeline needs."""

import dataclasses
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from ddf_jax.data.augmentation_config import AugmentationConfig, CropConfig
from ddf_jax.data.registered_transforms import TRANSFORMS
from ddf_jax.errors import UserError
from ddf_jax.registered import Named

Interpolation = Literal["bilinear", "bicubic", "random"]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How image files become arrays.

    Args:
        max_pixels: an image of more pixels is unreadable. The default is Pillow's own.
        sample_max: the sample that is white in an image of more than 8 bits; default: what the file or its type states.
    """

    max_pixels: int = 89_478_485
    sample_max: float | None = None


DEFAULT_DECODING = Decoding()

LABELLED_OPTIONS = (
    "crop",
    "augmentation",
    "transforms",
    "interpolation",
    "mean",
    "std",
    "eval_image_size",
    "eval_share",
)
"""Fields of `DataConfig` that only images with one label each have a use for."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the images come from and how they become batches."""

    dataset: str = "digits"
    """A TFDS name, `builder[/config][:version]`. Prepared once, then reused."""
    folder: Path | None = None
    """A folder of images instead of `dataset`: `train/<class>/` and `test/<class>/` (or usual names like these) inside,
    or just `<class>/`, of which a fixed tenth is then for evaluation. For detection a folder in COCO's layout."""
    data_dir: Path | None = None
    """Where prepared datasets live; default: TFDS's own folder."""
    train_split: str = "train"
    """TFDS split to train on, or the sub-folder of `folder`."""
    eval_split: str = "test"
    """TFDS split to evaluate on, or the sub-folder of `folder`; `val` takes the place of a missing `test`."""
    image_size: int = 224
    """Side of the square training images in pixels. Labelled images are evaluated at this size too, depth on whole
    images. Detection has a canvas instead, of the task."""
    augment: str = "imagenet"
    """Training augmentation. Labelled images: none; shift (by up to an eighth of the side); affine (a little rotation,
    scale and shift); imagenet (random resized crop and flip). Depth: crop (random crop and flip); holes (crop, and
    holes in the input). Detection: none; flip; jitter (large-scale jitter and flip)."""
    crop: CropConfig = dataclasses.field(default_factory=CropConfig)
    augmentation: AugmentationConfig = dataclasses.field(default_factory=AugmentationConfig)
    transforms: tuple[Named, ...] = ()
    """Names of your own transforms of labelled training images, applied in this order before normalisation. In Python
    the functions themselves may be given, as `register_transform` describes them."""
    repeats: int = 1
    """Times that each image of an epoch comes in a row, augmented differently (repeated augmentation). An epoch has as
    many examples as ever, so fewer images."""
    interpolation: Interpolation = "bilinear"
    """Of labelled images that are resized. random: one of the two for each training crop, bicubic in evaluation."""
    mean: tuple[float, ...] = ()
    """Of each channel of labelled images, in [0, 1], subtracted; default: ImageNet's, of grey images that of `digits`.
    """
    std: tuple[float, ...] = ()
    """The standard deviation that each channel is divided by; default: as for `mean`."""
    eval_image_size: int = 0
    """Side of the square that labelled images are evaluated at; 0: `image_size`."""
    eval_share: float | None = None
    """Share of the shorter side that evaluation, and training without random crops, see of a labelled image. Default:
    224/256, of squares below 96 pixels 1."""
    workers: int = 0
    """Grain worker processes that decode and augment; 0 works in the main process."""
    max_corrupt_share: float = 0.01
    """Share of a folder's image files that may be unreadable; one more, found at the start or later, stops the run."""
    max_pixels: int = Decoding.max_pixels
    """Pixels of an image; one with more is unreadable. Decoding takes up to 7 bytes a pixel."""
    sample_max: float | None = Decoding.sample_max
    """The sample that is white in images of more than 8 bits, such as 4095 for 12 bits in files of 16. Default: what
    each file states, else the largest number of its integer type."""
    allow_changed: bool = False
    """Resume with data that have changed since the run began; recorded in its history."""

    def __post_init__(self) -> None:
        for name in ("folder", "data_dir"):
            _replace(self, name, _path, "a path")
        object.__setattr__(self, "transforms", _names(self.transforms))
        for name in ("image_size", "workers", "max_pixels", "repeats", "eval_image_size"):
            _replace(self, name, operator.index, "a whole number")
        if self.image_size < 1:
            raise UserError(f"`image_size` must be at least 1 pixel, got {self.image_size}.")
        if self.eval_image_size < 0:
            raise UserError(
                f"`eval_image_size` must be a number of pixels, 0 for `image_size`, got {self.eval_image_size}."
            )
        if self.eval_share is not None and not 0.0 < self.eval_share <= 1.0:
            raise UserError(f"`eval_share` must be in (0, 1], got {self.eval_share}.")
        if self.repeats < 1:
            raise UserError(f"`repeats` must be at least 1, got {self.repeats}.")
        if self.interpolation not in get_args(Interpolation):
            raise UserError(
                f"`interpolation` must be one of {', '.join(get_args(Interpolation))}, got {self.interpolation!r}."
            )
        for name, least in (("mean", 0.0), ("std", 1e-6)):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(least <= number <= 1.0 for number in value):
                raise UserError(f"`{name}` must be a tuple of numbers from {least:g} to 1, got {value!r}.")
        if self.workers < 0:
            raise UserError(f"`workers` must be 0 (the main process) or a number of processes, got {self.workers}.")
        if not 0.0 <= self.max_corrupt_share <= 1.0:
            raise UserError(f"`max_corrupt_share` must be a share in [0, 1], got {self.max_corrupt_share}.")
        if self.max_pixels < 1:
            raise UserError(f"`max_pixels` must be at least 1, got {self.max_pixels}.")
        if self.sample_max is not None and not 0 < self.sample_max < float("inf"):
            raise UserError(f"`sample_max` must be the sample that is white, above 0, got {self.sample_max}.")

    @property
    def eval_size(self) -> int:
        """Side of the squares that labelled images are evaluated at."""
        return self.eval_image_size or self.image_size

    @property
    def eval_shape(self) -> tuple[int, int] | None:
        """Height and width of these squares, None where they are as large as the training images."""
        return None if self.eval_size == self.image_size else (self.eval_size, self.eval_size)

    @property
    def decoding(self) -> Decoding:
        """How the image files are decoded."""
        return Decoding(self.max_pixels, self.sample_max)


def _replace(config: DataConfig, name: str, convert: Callable[[Any], Any], expected: str) -> None:
    """Gives a field of a frozen config its declared type."""
    value = getattr(config, name)
    try:
        object.__setattr__(config, name, convert(value))
    except TypeError:
        raise UserError(f"`{name}` must be {expected}, got {value!r}.") from None


def _names(transforms: Any) -> tuple[str, ...]:
    if isinstance(transforms, str):
        raise UserError(f"`transforms` must be a tuple of names, got the string {transforms!r}.")
    return tuple(map(TRANSFORMS.name, transforms))


def _path(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else Path(value)
