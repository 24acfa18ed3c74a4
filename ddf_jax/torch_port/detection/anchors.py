"""Anchors: boxes of some scales and ratios at every pixel of every level of a pyramid."""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

RATIOS = (0.5, 1.0, 2.0)
"""Heights over widths."""


@dataclasses.dataclass(frozen=True)
class Anchors:
    """Anchors centred at the upper left corners of pixels, not rounded.

    Args:
        strides: of the levels.
        scales: sides of a square anchor over the stride.
    """

    strides: tuple[int, ...]
    scales: tuple[float, ...]

    @property
    def per_pixel(self) -> int:
        return len(RATIOS) * len(self.scales)

    def levels(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Of levels [B, C, H, W]: [H·W·A, 4] each, by row, column, ratio, scale, in the dtype of the maps."""
        levels = []
        for x, stride in zip(maps, self.strides, strict=True):
            rows, columns = (stride * torch.arange(size).to(x) for size in x.shape[2:])
            y, x_ = torch.meshgrid(rows, columns, indexing="ij")
            corners = torch.stack([x_, y, x_, y], 2)[:, :, None]
            levels.append((corners + self._sides(stride, x)).reshape(-1, 4))
        return levels

    def covered(self, maps: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Whether each anchor is at a pixel that an image of that (height, width), padded to 32, has: [H·W·A]."""
        covered = []
        for x, stride in zip(maps, self.strides, strict=True):
            rows, columns = (
                torch.arange(length) < math.ceil(math.ceil(side / 32) * 32 / stride)
                for length, side in zip(x.shape[2:], size, strict=True)
            )
            pixels = (rows[:, None] & columns[None]).flatten()
            covered.append(pixels.repeat_interleave(self.per_pixel).to(x.device))
        return covered

    def _sides(self, stride: int, like: Tensor) -> Tensor:
        """The corners [A, 4] relative to their centre."""
        root = like.new_tensor(RATIOS).sqrt()[:, None]
        scales = like.new_tensor(self.scales)[None]
        width, height = (stride * (1 / root) * scales).flatten(), (stride * root * scales).flatten()
        return torch.stack([-width, -height, width, height], 1) * 0.5
