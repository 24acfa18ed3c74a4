"""Random weights and images for comparisons. They depend on names, shapes and a seed alone, on every machine.

`numpy.random.RandomState` is numpy's one generator whose stream never changes.
"""

import re
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ddf_jax.checkpoints.layouts import COUNTER

_POOLED = re.compile(r"\.attention\.bn$")
"""Normalisations of averages over the pixels, ODConv's. Averages of random images hardly differ, so each normalisation
blows up a difference of rounding: by 10⁹ over the fifty of a network."""
_POOLED_SCALE = 0.1
"""Their scales in relation to others: attention varies so little then that rounding stays rounding."""


class RandomBatch(NamedTuple):
    """Images [B, H, W, C] and their labels [B]."""

    images: np.ndarray
    labels: np.ndarray


def random_weights(shapes: Mapping[str, tuple[int, ...]], *, margin: float, seed: int = 0) -> dict[str, np.ndarray]:
    """A float64 tensor for each name of an official state dict.

    No scale is 0 or 1 and no bias is 0, so an error in any of them shows.

    Args:
        shapes: shapes by official name.
        margin: mean of every normalised activation, in standard deviations above 0. At 0, half of the units in front
            of a ReLU are off. A unit within rounding of 0 may be on in one implementation and off in the other; then
            gradients differ by far more than rounding. In float32 one such unit among ten million is enough. At 4.25
            there is none, and one unit in 90,000 is still off.
        seed: seed of the random values.
    """
    return {name: _weight(name, shape, shapes, margin, seed) for name, shape in shapes.items()}


def random_batch(
    size: tuple[int, int], *, batch: int, num_classes: int, channels: int = 3, seed: int = 0
) -> RandomBatch:
    """Images with standard normal pixels, and uniformly distributed labels."""
    random = _random(seed, "batch")
    return RandomBatch(random.standard_normal((batch, *size, channels)), random.randint(0, num_classes, batch))


def rounded_to(value: np.ndarray, dtype: str) -> np.ndarray:
    """Values rounded to `dtype`, in float64; integers as they are."""
    return value.astype(dtype).astype(np.float64) if np.issubdtype(value.dtype, np.floating) else value


def _weight(
    name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]], margin: float, seed: int
) -> np.ndarray:
    layer, _, kind = name.rpartition(".")
    random = _random(seed, name)
    normalises = f"{layer}.running_var" in shapes
    if kind == COUNTER:
        return np.zeros(shape, np.int64)
    if kind == "running_var" or (normalises and kind == "weight"):
        return random.uniform(0.5, 1.5, shape) * (_POOLED_SCALE if kind == "weight" and _POOLED.search(layer) else 1.0)
    if normalises and kind == "bias":
        scale = _weight(f"{layer}.weight", shape, shapes, margin, seed)
        return _margin(layer, shapes, margin) * scale + 0.1 * random.standard_normal(shape)
    if kind == "running_mean":
        return 0.1 * random.standard_normal(shape)
    if len(shape) == 4:
        return random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    if len(shape) == 2:  # the classifier: logits of order 1, so that the softmax is not saturated
        return random.standard_normal(shape) / (np.sqrt(shape[1]) * (1 + margin))
    return 0.3 * random.standard_normal(shape)


def _margin(layer: str, shapes: Mapping[str, tuple[int, ...]], margin: float) -> float:
    """Smaller for the last normalisation of a block, because residual sums add up the shifts of all blocks."""
    match = re.fullmatch(r"(.+\.bn)(\d)", layer)
    last = match is not None and not any(f"{match[1]}{n}.running_var" in shapes for n in range(int(match[2]) + 1, 10))
    return margin / 8 if last else margin


def _random(seed: int, name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(f"{seed} {name}".encode()))
