"""From pixels to what a network sees."""

import dataclasses
import functools
from typing import Any

import grain
import numpy as np

from ddf_jax.data.crop import to_array
from ddf_jax.errors import UserError

# channels -> mean and standard deviation of pixels in [0, 1]. 3: ImageNet's customary ones; 1: the training images of
# `digits`, and good enough for another grey dataset, because a BatchNorm follows the first convolution.
_STATISTICS = {
    1: ((0.3058,), (0.3761,)),
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclasses.dataclass(frozen=True)
class Normalize(grain.transforms.Map):
    """`(image / 255 - mean) / std` per channel, computed in float32.

    Args:
        channels: of the images, 1 or 3.
        mean: of each channel; default: that of ImageNet or, of grey images, of `digits`.
        std: likewise.

    Raises:
        UserError: there is not one number for each channel.
    """

    channels: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, value in zip(("mean", "std"), _STATISTICS[self.channels], strict=True):
            object.__setattr__(self, name, getattr(self, name) or value)
            if len(getattr(self, name)) != self.channels:
                raise UserError(
                    f"`{name}` must have a number for each of the {self.channels} channels, got {getattr(self, name)}."
                )

    def map(self, element: dict[str, Any]) -> Any:
        image = to_array(element["image"])
        normalized = np.empty(image.shape, np.float32)
        self.write(image, normalized)
        return element | {"image": normalized}

    def write(self, image: np.ndarray, normalized: np.ndarray) -> None:
        """Normalises an image, or several, into a contiguous array of its shape."""
        width = normalized.shape[-2]
        mean, std = _row(self.mean, width), _row(self.std, width)
        rows = normalized.reshape(-1, len(mean))  # rows of 3 numbers would take five times as long
        np.divide(image.reshape(rows.shape), np.float32(255), out=rows)
        rows -= mean
        rows /= std

    def undo(self, images: np.ndarray) -> np.ndarray:
        """Normalised images as pixels in [0, 1]."""
        return np.clip(images * np.array(self.std, np.float32) + np.array(self.mean, np.float32), 0, 1)


@functools.lru_cache(maxsize=64)
def _row(values: tuple[float, ...], width: int) -> np.ndarray:
    """The channels' values for each pixel of a row."""
    return np.tile(np.array(values, np.float32), width)
