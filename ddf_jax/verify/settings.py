"""Settings of a comparison and its tolerances."""

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any

TOLERANCES = {"float64": 1e-9, "float32": 1e-4}

SIZE = (97, 65)
_LARGER = {"san*": (161, 129)}  # its last maps, of 1/32 of an image, are reflected by 3 pixels


def default_size(name: str) -> tuple[int, int]:
    """Height and width of the images for a model, odd ones.

    >>> default_size("resnet50"), default_size("san10")
    ((97, 65), (161, 129))
    """
    return next((size for pattern, size in _LARGER.items() if fnmatch.fnmatch(name, pattern)), SIZE)


def default_batch(name: str) -> int:
    """Number of images for a model. ODConv normalises one vector of each image: of two they become 1 and -1, whatever
    they are, so that nothing flows back.

    >>> default_batch("resnet50"), default_batch("odconv_resnet50")
    (2, 4)
    """
    return 4 if name.startswith("odconv_") else 2


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings that all comparisons of one call of `verify` share.

    Args:
        dtype: dtype of the Flax side's arithmetic; the port computes in float64.
        size: height and width of the images.
        batch: number of images.
        implementation: implementation of `dynamic_filter`; `None` is the best that runs here.
        options: options of the model or layer on both sides.
        seed: seed of the random weights and images.
    """

    dtype: str
    size: tuple[int, int]
    batch: int
    implementation: str | None
    options: Mapping[str, Any]
    seed: int
