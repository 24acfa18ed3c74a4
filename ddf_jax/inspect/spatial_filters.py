"""Filters that differ from pixel to pixel: of DDF, involution and LSA."""

import math

import numpy as np

from ddf_jax.inspect.tiling import tiled


def mosaic(filters: np.ndarray) -> np.ndarray:
    """Every K×K filter where its pixel is: [B, H, W, G, T] to [B, G, H·K, W·K]."""
    size = math.isqrt(filters.shape[-1])
    return tiled(filters.reshape(*filters.shape[:-1], size, size).transpose(0, 3, 1, 2, 4, 5))


def tap_sums(filters: np.ndarray) -> np.ndarray:
    """One number for each filter, the sum of its taps: [B, H, W, G, T] to [B, G, H, W].

    It is 0 for all filters that were normalised to mean 0.

    Reference: Li et al., "Involution", CVPR 2021, which draws these sums.
    """
    return filters.sum(-1).transpose(0, 3, 1, 2)


def likeness(filters: np.ndarray) -> np.ndarray:
    """Colours that are alike where filters are: [B, H, W, G, T] to RGB [B, H, W, 3] in [0, 1].

    Red, green and blue are the first three principal components of all pixels' filters, on one scale, around grey.
    """
    points = filters.reshape(-1, filters.shape[-2] * filters.shape[-1]).astype(np.float64)
    points = points - points.mean(0)
    _, vectors = np.linalg.eigh(points.T @ points)  # of rising eigenvalues
    axes = vectors.T[:-4:-1]
    # A component's sign is arbitrary. With its largest weight positive, the same filters have the same colours.
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1))
    components = np.zeros((len(points), 3))
    components[:, : len(axes)] = points @ axes.T
    return (0.5 + components / (2 * max(np.abs(components).max(), 1e-12))).reshape(*filters.shape[:3], 3)
