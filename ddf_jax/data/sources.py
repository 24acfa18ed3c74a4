"""Opens what a recipe names: one interface over prepared TFDS datasets and folders of images."""

import dataclasses
import functools
from typing import Any, Literal, Protocol

from ddf_jax.data.config import DataConfig
from ddf_jax.data.depth_source import DepthSource
from ddf_jax.data.image_folder import ImageFolder
from ddf_jax.data.tfds_source import TfdsSource


class Source(Protocol):
    """Images with what is to be found in them, by index, the same in every process.

    What Grain calls a random access data source.
    """

    name: str
    """Of the set, with its version where it has one."""
    class_names: tuple[str, ...]
    channels: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        """`{"image": uint8 [H, W, C], "label": int}`, or `"depth": float32 [H, W]` in place of the label.

        None where an image file is unreadable.
        """
        ...


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What a model and a training loop must know of the data."""

    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    train_size: int
    eval_size: int
    image_size: int
    eval_shape: tuple[int, int] | None = None
    """Height and width in evaluation, where these are not `image_size`."""
    scale: int | None = None
    """Of depth: how many times lower the resolution of a model's input is."""

    def steps(self, epochs: float, batch_size: int) -> int:
        """Training steps in so many epochs, at least 1. Batches run on over the end of an epoch, so none is cut short.

        >>> DataInfo(10, tuple("0123456789"), 1, train_size=1437, eval_size=360, image_size=8).steps(2.0, batch_size=64)
        45
        """
        return max(1, round(epochs * self.train_size / batch_size))


@functools.lru_cache(maxsize=8)
def open_source(config: DataConfig, split: Literal["train", "eval"]) -> Source:
    """The examples to train or evaluate on. Opened once per process, so that a run sees one listing of a folder.

    Raises:
        ValueError: the dataset or folder does not exist or does not fit; the message says what to do.
    """
    tfds_split = config.train_split if split == "train" else config.eval_split
    if config.target == "depth":
        return DepthSource(config.dataset, tfds_split, config.data_dir)
    if config.folder is not None:
        return ImageFolder(config.folder, split, config.max_corrupt_share)
    return TfdsSource(config.dataset, tfds_split, config.data_dir)


def describe(config: DataConfig) -> DataInfo:
    """Classes and sizes of a recipe's data."""
    train, evaluation = open_source(config, "train"), open_source(config, "eval")
    return DataInfo(
        num_classes=len(train.class_names),
        class_names=train.class_names,
        channels=train.channels,
        train_size=len(train),
        eval_size=len(evaluation),
        image_size=config.image_size,
        eval_shape=evaluation.shape if isinstance(evaluation, DepthSource) else None,
        scale=config.scale if config.target == "depth" else None,
    )
