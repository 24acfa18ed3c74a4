"""Generated filters of a network, arranged as images.

Spatial filters [B, H, W, G, T] differ from pixel to pixel (DDF, Involution, LSA), channel filters [B, T, C] from
channel to channel (DDF), and shared kernels [B, K, K, C, D] from image to image only (GSI).
"""

import math

import numpy as np

# By a filter generator's name in its layer: the kind of filters, and their rank.
GENERATORS = {
    "spatial_branch": ("spatial_filters", 5),
    "channel_branch": ("channel_filters", 3),
    "predict": ("shared_kernels", 5),
}


def filter_generators(shapes: dict[str, tuple[int, ...]], layer: str) -> dict[str, str]:
    """The filter generators within a layer by name, with the kind of their filters.

    Args:
        shapes: the shapes of all layers' outputs by name.
        layer: the layer's name.
    """
    generators = {}
    for name, shape in shapes.items():
        kind, rank = GENERATORS.get(name.rpartition(".")[2], ("", 0))
        if f"{name}.".startswith(f"{layer}.") and len(shape) == rank:
            generators[name] = kind
    return generators


def mosaic(filters: np.ndarray) -> np.ndarray:
    """Every spatial K×K filter at the position of its pixel: [B, H, W, G, T] to [B, G, H·K, W·K]."""
    size = math.isqrt(filters.shape[-1])
    return _tile(filters.reshape(*filters.shape[:-1], size, size).transpose(0, 3, 1, 2, 4, 5))


def tap_sums(filters: np.ndarray) -> np.ndarray:
    """The sum of every spatial filter's taps: [B, H, W, G, T] to [B, G, H, W].

    It is 0 for filters that were normalised to mean 0.

    Reference: Li et al., "Involution", CVPR 2021, which draws these sums.
    """
    return filters.sum(-1).transpose(0, 3, 1, 2)


def similarity_colours(filters: np.ndarray) -> np.ndarray:
    """Similar colours for similar spatial filters: [B, H, W, G, T] to RGB [B, H, W, 3] in [0, 1].

    Red, green and blue are the first three principal components of all pixels' filters, on one scale, around grey.
    """
    points = filters.reshape(-1, filters.shape[-2] * filters.shape[-1]).astype(np.float64)
    points = points - points.mean(0)
    _, vectors = np.linalg.eigh(points.T @ points)  # in the order of rising eigenvalues
    axes = vectors.T[:-4:-1]
    # A component's sign is arbitrary. With its largest weight positive, the same filters have the same colours.
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1))
    components = np.zeros((len(points), 3))
    components[:, : len(axes)] = points @ axes.T
    return (0.5 + components / (2 * max(np.abs(components).max(), 1e-12))).reshape(*filters.shape[:3], 3)


def filter_grid(filters: np.ndarray) -> np.ndarray:
    """The K×K channel filters row by row in a square: [B, T, C] to [B, rows·K, columns·K].

    Cells behind the last channel are NaN.
    """
    batch, taps, channels = filters.shape
    size, columns = math.isqrt(taps), math.ceil(channels**0.5)
    rows = math.ceil(channels / columns)
    blocks = np.full((batch, rows * columns, size, size), np.nan)
    blocks[:, :channels] = filters.swapaxes(1, 2).reshape(batch, channels, size, size)
    return _tile(blocks.reshape(batch, rows, columns, size, size))


def kernel_matrix(kernels: np.ndarray) -> np.ndarray:
    """A shared kernel for each output channel (down) and input channel (across): [B, K, K, C, D] to [B, D·K, C·K]."""
    return _tile(kernels.transpose(0, 4, 3, 1, 2))


def _tile(blocks: np.ndarray) -> np.ndarray:
    """Blocks in rows and columns as one image: [..., R, S, h, w] to [..., R·h, S·w]."""
    *batch, rows, columns, height, width = blocks.shape
    return blocks.swapaxes(-3, -2).reshape(*batch, rows * height, columns * width)
