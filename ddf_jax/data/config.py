"""The part of a recipe that the data pipeline needs."""

import dataclasses
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddf_jax.errors import UserError


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
    """Go on with data that have changed since the run began; recorded in its history."""

    def __post_init__(self) -> None:
        for name in ("folder", "data_dir"):
            _replace(self, name, _path, "a path")
        for name in ("image_size", "workers", "max_pixels"):
            _replace(self, name, operator.index, "a whole number")
        if self.image_size < 1:
            raise UserError(f"`image_size` must be at least 1 pixel, got {self.image_size}.")
        if self.workers < 0:
            raise UserError(f"`workers` must be 0 (the main process) or a number of processes, got {self.workers}.")
        if not 0.0 <= self.max_corrupt_share <= 1.0:
            raise UserError(f"`max_corrupt_share` must be a share in [0, 1], got {self.max_corrupt_share}.")
        if self.max_pixels < 1:
            raise UserError(f"`max_pixels` must be at least 1, got {self.max_pixels}.")
        if self.sample_max is not None and not 0 < self.sample_max < float("inf"):
            raise UserError(f"`sample_max` must be the sample that is white, above 0, got {self.sample_max}.")

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


def _path(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else Path(value)
