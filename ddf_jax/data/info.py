"""Facts about a run's data that its model and its training step need. Light: importing it loads no data library."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """Classes, channels and sizes of a run's data."""

    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    train_size: int
    eval_size: int
    image_size: int
    eval_shape: tuple[int, int] | None = None
    """Height and width in evaluation where they differ from `image_size`."""
    stuff_names: tuple[str, ...] = ()
    """Classes of pixels that belong to no object, in panoptic data."""

    def steps(self, epochs: float, batch_size: int) -> int:
        """Training steps in so many epochs, at least 1. Batches continue over the end of an epoch, none is shortened.

        >>> DataInfo(10, tuple("0123456789"), 1, train_size=1437, eval_size=360, image_size=8).steps(2.0, batch_size=64)
        45
        """
        return max(1, round(epochs * self.train_size / batch_size))
