"""The part of a recipe that the data pipeline needs."""

import dataclasses
from pathlib import Path

from ddf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the images come from and how they become batches."""

    dataset: str = "digits"
    """A TFDS name, `builder[/config][:version]`. Prepared once, then reused."""
    folder: Path | None = None
    """A folder of images instead of `dataset`: `train/<class>/` and `test/<class>/` inside, or just `<class>/`, of
    which a fixed tenth is then for evaluation."""
    data_dir: Path | None = None
    """Where prepared datasets live; default: TFDS's own folder."""
    train_split: str = "train"
    """TFDS split to train on."""
    eval_split: str = "test"
    """TFDS split to evaluate on."""
    image_size: int = 224
    """Side of the square training images in pixels. Labelled images are evaluated at this size too, depth on whole
    images."""
    augment: str = "imagenet"
    """Training augmentation. Labelled images: none; shift (by up to an eighth of the side); affine (a little rotation,
    scale and shift); imagenet (random resized crop and flip). Depth: crop (random crop and flip); holes (crop, and
    holes in the input)."""
    workers: int = 0
    """Grain worker processes that decode and augment; 0 works in the main process."""
    max_corrupt_share: float = 0.01
    """Share of a folder's image files that may be unreadable; one more, found at the start or later, stops the run."""

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise UserError(f"`image_size` must be at least 1 pixel, got {self.image_size}.")
        if self.workers < 0:
            raise UserError(f"`workers` must be 0 (the main process) or a number of processes, got {self.workers}.")
        if not 0.0 <= self.max_corrupt_share <= 1.0:
            raise UserError(f"`max_corrupt_share` must be a share in [0, 1], got {self.max_corrupt_share}.")
