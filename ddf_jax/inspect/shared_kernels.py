"""Kernels that are an image's own and the same for all of its pixels: of GSI."""

import numpy as np

from ddf_jax.inspect.tiling import tiled


def kernel_matrix(kernels: np.ndarray) -> np.ndarray:
    """A K×K block for each output channel (down) and input channel (across): [B, K, K, C, D] to [B, D·K, C·K]."""
    return tiled(kernels.transpose(0, 4, 3, 1, 2))
