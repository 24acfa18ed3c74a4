"""Anchors: boxes of some scales and aspect ratios around the corner of each pixel of each level of a pyramid."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array


@dataclasses.dataclass(frozen=True)
class Anchors:
    """The anchors of a pyramid, as MMDetection's: centred at the pixel's upper left corner and not rounded.

    Args:
      strides: of the levels, in pixels of the image.
      scales: sides of a square anchor, in strides.
      ratios: height / width.
    """

    strides: tuple[int, ...]
    scales: tuple[float, ...]
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    @property
    def per_pixel(self) -> int:
        return len(self.ratios) * len(self.scales)

    def levels(self, sizes: Sequence[tuple[int, int]], dtype: jnp.dtype) -> list[Array]:
        """The anchors of levels of these sizes: [H·W·A, 4] each, in the order row, column, ratio, scale."""
        grids = []
        for stride, (height, width) in zip(self.strides, sizes, strict=True):
            rows, columns = np.mgrid[:height, :width] * stride
            corners = np.stack([columns, rows, columns, rows], axis=-1)
            grids.append(jnp.asarray((corners[:, :, None] + self._base(stride)).reshape(-1, 4), dtype))
        return grids

    def inside(self, sizes: Sequence[tuple[int, int]], padded: Array) -> list[Array]:
        """Which anchors of each image lie at a pixel that its own size covers: [B, H·W·A] each.

        Args:
          sizes: of the levels.
          padded: (height, width) [B, 2] of each image, rounded up to what the network pads to on its own.
        """
        found = []
        for stride, (height, width) in zip(self.strides, sizes, strict=True):
            covered = -(-padded // stride)
            rows = jnp.arange(height, dtype=padded.dtype)[None] < covered[:, :1]
            columns = jnp.arange(width, dtype=padded.dtype)[None] < covered[:, 1:]
            pixels = (rows[:, :, None] & columns[:, None, :]).reshape(len(padded), -1)
            found.append(jnp.repeat(pixels, self.per_pixel, axis=1))
        return found

    def _base(self, stride: int) -> np.ndarray:
        """The anchors at the pixel (0, 0): [A, 4] in float64."""
        root = np.sqrt(np.array(self.ratios))[:, None]
        scales = np.array(self.scales)[None]
        widths, heights = (stride * (1 / root) * scales).ravel(), (stride * root * scales).ravel()
        return np.stack([-0.5 * widths, -0.5 * heights, 0.5 * widths, 0.5 * heights], axis=-1)
