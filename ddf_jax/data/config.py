"""What a run reads: the part of a recipe that the data pipeline needs."""

import dataclasses
from pathlib import Path
from typing import Literal


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
    target: Literal["label", "depth"] = "label"
    """What is to be found: an image's class, or the depth of its pixels from depth of lower resolution."""
    scale: int = 4
    """For depth: how many times lower in each direction."""
    image_size: int = 224
    """Side of the square images the model sees, in pixels; for depth those of training, and evaluation sees whole
    pictures."""
    augment: Literal["none", "shift", "affine", "imagenet", "crop", "holes"] = "imagenet"
    """Training augmentation. For labels: none; a random shift of an eighth of the side; a little rotation, scale and
    shift; or random resized crop and flip. For depth: random crop and flip, without or with holes in the input."""
    workers: int = 0
    """Grain worker processes that decode and augment; 0 works in the main process."""
    max_corrupt_share: float = 0.01
    """Share of a folder's image files that may be unreadable; one more, found at the start or later, stops the run."""

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"`image_size` must be at least 1 pixel, got {self.image_size}.")
        if self.scale < 1:
            raise ValueError(f"`scale` must be at least 1, got {self.scale}.")
        if self.target == "depth" and self.folder is not None:
            raise ValueError(f"Depth must come from a `dataset`, such as rooms, got the `folder` {self.folder}.")
        if self.workers < 0:
            raise ValueError(f"`workers` must be 0 (the main process) or a number of processes, got {self.workers}.")
        if not 0.0 <= self.max_corrupt_share <= 1.0:
            raise ValueError(f"`max_corrupt_share` must be a share in [0, 1], got {self.max_corrupt_share}.")
