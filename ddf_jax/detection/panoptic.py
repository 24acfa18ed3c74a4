"""Panoptic fusion: instances and stuff as one map, on the host."""

import dataclasses

import numpy as np

INSTANCE = 1000
"""An id of the map is the class plus this times the number of the instance, from 1; stuff has no number."""


@dataclasses.dataclass(frozen=True)
class FusionSettings:
    """MMDetection's settings of Panoptic FPN.

    Args:
      overlap: an instance is left out where more than this share of its mask is covered by better ones.
      stuff_area: pixels of a class of stuff, below which it is left out.
    """

    overlap: float = 0.5
    stuff_area: int = 4096


def panoptic_map(
    masks: np.ndarray,
    labels: np.ndarray,
    semantic: np.ndarray,
    *,
    num_things: int,
    num_stuff: int,
    settings: FusionSettings,
) -> np.ndarray:
    """One id for each pixel [H, W] int32: see `INSTANCE`. Things come first among the classes, then stuff, then void.

    Args:
      masks: of instances, by descending score [N, H, W] bool.
      labels: classes of the instances [N].
      semantic: the number of each pixel's stuff [H, W], the number of stuff classes for a thing.
      num_things: classes of things.
      num_stuff: classes of stuff.
      settings: of the fusion.
    """
    instances = np.zeros(semantic.shape, np.int32)
    found = num_things + semantic.astype(np.int32)
    number = 0
    for mask, label in zip(masks, labels, strict=True):
        area, covered = mask.sum(), (mask & (instances > 0)).sum()
        if not area or covered / (area + 1e-5) > settings.overlap:
            continue
        number += 1
        free = mask & (instances == 0)
        instances[free] = number
        found[free] = label + number * INSTANCE
    classes, areas = np.unique(found[instances == 0], return_counts=True)
    small = classes[areas < settings.stuff_area]
    found[np.isin(found, small)] = num_things + num_stuff
    return found


def semantic_map(
    logits: np.ndarray, canvas: tuple[int, int], size: tuple[int, int], original: tuple[int, int]
) -> np.ndarray:
    """The best class of each pixel of the original image [H, W] int32.

    The logits are bilinearly interpolated to the canvas that the network saw, cut to the image without its padding,
    and interpolated to the original size.

    Args:
      logits: [h, w, classes].
      canvas: height and width of the network's input.
      size: of the image in it.
      original: of the image before it was resized.
    """
    rows, columns = (
        _resizing(inner, whole) @ _resizing(old, new)[:inner]
        for old, new, inner, whole in zip(logits.shape[:2], canvas, size, original, strict=True)
    )
    wide = np.einsum("Ww,hwc->hWc", columns.astype(logits.dtype), logits)
    chunks = np.array_split(rows.astype(logits.dtype), max(1, original[0] // 64))
    return np.concatenate([np.einsum("Hh,hwc->Hwc", chunk, wide).argmax(-1) for chunk in chunks]).astype(np.int32)


def _resizing(old: int, new: int) -> np.ndarray:
    """The weights [new, old] of a bilinear interpolation between pixels' centres, the border repeated."""
    place = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    low = np.minimum(place.astype(int), old - 1)
    high, upper = np.minimum(low + 1, old - 1), place - low
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new), low), 1 - upper)
    np.add.at(weights, (np.arange(new), high), upper)
    return weights
