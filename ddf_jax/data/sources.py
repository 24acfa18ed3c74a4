"""Random-access sources of examples, and the protocol of one kind of examples."""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from ddf_jax.data.config import DataConfig
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import UserError

if TYPE_CHECKING:  # pillow is not needed to build a training step
    from ddf_jax.data.crop import Crop

Split = Literal["train", "eval"]


class Source(Protocol):
    """Examples by index, the same in every process: a random access data source, as Grain calls it."""

    name: str
    """Of the set, with its version where it has one."""
    class_names: tuple[str, ...]
    """Empty where there are no classes."""
    channels: int
    """Of an image."""

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of all images where they are evaluated whole, None where they are resized."""
        ...

    def describe(self, index: int) -> str:
        """An example's file, or its number and set, for errors."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """The parts of the data by name, such as classes, and for each a text that other data do not share."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        """`{"image": uint8 [H, W, C], …}` with the targets of its kind; None where an image file is unreadable."""
        ...


@runtime_checkable
class CropSource(Protocol):
    """A source that can leave out what a crop does not need."""

    channels: int

    def describe(self, index: int) -> str: ...

    def __len__(self) -> int: ...

    def read(self, index: int, crop: "Crop | None" = None) -> dict[str, Any] | None:
        """The example of an index, its image cropped and resized."""
        ...


class Examples(Protocol):
    """One kind of examples, as a frozen dataclass: how they are opened, and what becomes of them in a batch.

    The transforms are Grain's; the last of them leave the arrays that a task's `batch_spec` names.
    """

    def open(self, config: DataConfig, split: Split) -> Source:
        """The source of one split.

        Raises:
            UserError: the dataset or folder does not exist or does not fit; the message states what to do.
        """
        ...

    def training(self, config: DataConfig, source: Any) -> Sequence[Any]:
        """Transforms of a training example: the augmentation, then what evaluation does too."""
        ...

    def evaluation(self, config: DataConfig, source: Any) -> Sequence[Any]:
        """Transforms of an evaluation example: nothing random."""
        ...

    def blank(self, config: DataConfig, source: Any) -> dict[str, Any]:
        """The example that padding consists of, as the source gives it."""
        ...


@functools.lru_cache(maxsize=8)
def open_source(config: DataConfig, examples: Examples, split: Split) -> Source:
    """The examples to train or evaluate on. Opened once per process, so that a run sees one listing of a folder.

    Raises:
        UserError: the dataset or folder does not exist or does not fit; the message states what to do.
    """
    return examples.open(config, split)


def describe(config: DataConfig, examples: Examples) -> DataInfo:
    """Classes and sizes of a recipe's data.

    Raises:
        UserError: the data cannot be opened, or the two splits have other classes.
    """
    train, evaluation = open_source(config, examples, "train"), open_source(config, examples, "eval")
    if train.class_names != evaluation.class_names:
        raise UserError(
            f"The classes to train and to evaluate on must be the same, got {len(train.class_names)} in {train.name} "
            f"and {len(evaluation.class_names)} in {evaluation.name}, or other names."
        )
    return _info(config, evaluation, len(train))


def describe_evaluation(config: DataConfig, examples: Examples) -> DataInfo:
    """Classes and sizes of data to evaluate on, which need no split to train on: `train_size` is 0.

    Raises:
        UserError: the data cannot be opened.
    """
    return _info(config, open_source(config, examples, "eval"), 0)


def _info(config: DataConfig, evaluation: Source, train_size: int) -> DataInfo:
    return DataInfo(
        num_classes=len(evaluation.class_names),
        class_names=evaluation.class_names,
        channels=evaluation.channels,
        train_size=train_size,
        eval_size=len(evaluation),
        image_size=config.image_size,
        eval_shape=evaluation.shape or config.eval_shape,
        stuff_names=getattr(evaluation, "stuff_names", ()),
    )
