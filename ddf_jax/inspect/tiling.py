"""Small pictures side by side."""

import numpy as np


def tiled(blocks: np.ndarray) -> np.ndarray:
    """Blocks in rows and columns as one picture: [..., R, S, h, w] to [..., R·h, S·w]."""
    *batch, rows, columns, height, width = blocks.shape
    return blocks.swapaxes(-3, -2).reshape(*batch, rows * height, columns * width)
