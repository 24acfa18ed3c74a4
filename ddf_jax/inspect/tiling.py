"""Small pictures side by side."""

import numpy as np


def tiled(blocks: np.ndarray, *, gap: int = 1) -> np.ndarray:
    """Blocks in rows and columns as one picture: [..., R, S, h, w] to [..., R·(h + gap) - gap, S·(w + gap) - gap].

    Between them is NaN.
    """
    *batch, rows, columns, height, width = blocks.shape
    framed = np.full((*batch, rows, columns, height + gap, width + gap), np.nan)
    framed[..., :height, :width] = blocks
    picture = framed.swapaxes(-3, -2).reshape(*batch, rows * (height + gap), columns * (width + gap))
    return picture[..., : picture.shape[-2] - gap, : picture.shape[-1] - gap]
