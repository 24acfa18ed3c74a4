"""RoIAlign: the part of a map in each box, resampled to bins."""

from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK = 64
"""Boxes at once, which limits the memory."""


def roi_align(x: Tensor, boxes: Tensor, stride: float, size: int) -> Tensor:
    """Averages of bilinear samples in size×size bins of each box.

    A bin of a box of h×w pixels of the map has ceil(h / size)·ceil(w / size) samples; the middle of the first pixel is
    at 0.5. They are separable: with a matrix of weights for the rows and one for the columns it is two products.

    Args:
        x: map [C, H, W], or one for each box [R, C, H, W].
        boxes: [R, 4] in pixels of the image.
        stride: of the map.
        size: bins along each axis.

    Returns:
        [R, C, size, size].

    Reference: He et al., Mask R-CNN, ICCV 2017.
    """
    boxes = boxes.detach() / stride - 0.5
    rows = _weights(boxes[:, 1], boxes[:, 3], size, x.shape[-2])
    columns = _weights(boxes[:, 0], boxes[:, 2], size, x.shape[-1])
    if x.ndim == 4:
        return torch.einsum("rih,rchw,rjw->rcij", rows, x, columns)
    parts = [
        torch.einsum("rih,chw,rjw->rcij", *chunk[:1], x, *chunk[1:])
        for chunk in zip(rows.split(CHUNK), columns.split(CHUNK), strict=True)
    ]
    return torch.cat(parts)


def roi_features(
    levels: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int], size: int, finest: float = 56.0
) -> Tensor:
    """RoIAlign of the boxes of all images, each from the level of its size.

    A box of side s is of the level floor(log2(s / finest)), or of the first or last one.

    Args:
        levels: [B, C, H, W] each.
        boxes: [R, 4] of each image.
        strides: of the levels.
        size: bins along each axis.
        finest: half of the side of the smallest boxes of the second level.

    Returns:
        [sum of R, C, size, size], image after image.
    """
    outputs = []
    for image, of_image in enumerate(boxes):
        sides = ((of_image[:, 2] - of_image[:, 0]) * (of_image[:, 3] - of_image[:, 1])).sqrt()
        number = (sides / finest + 1e-6).log2().floor().clamp(0, len(levels) - 1)
        output = levels[0].new_zeros(len(of_image), levels[0].shape[1], size, size)
        for level, (x, stride) in enumerate(zip(levels, strides, strict=True)):
            [members] = (number == level).nonzero(as_tuple=True)
            if len(members):
                output = output.index_put((members,), roi_align(x[image], of_image[members], stride, size))
        outputs.append(output)
    return torch.cat(outputs)


def _weights(start: Tensor, end: Tensor, size: int, length: int) -> Tensor:
    """The weights [R, size, length] of the pixels of an axis in each bin between `start` and `end` [R]."""
    bins = (end - start) / size
    count = bins.ceil().clamp(min=1)
    sample = torch.arange(int(count.max()) if len(count) else 1).to(bins)
    live = sample < count[:, None, None]
    first = start[:, None, None] + torch.arange(size).to(bins)[:, None] * bins[:, None, None]
    place = first + (sample + 0.5) * (bins / count)[:, None, None]
    live = live & (place >= -1) & (place <= length) & (bins > 0)[:, None, None]
    place = place.clamp(0, length - 1)
    pixel = torch.arange(length).to(bins)
    # A sample counts for the two pixels next to it, by the distance to the other one.
    weights = (1 - (place[..., None] - pixel).abs()).clamp(min=0) * live[..., None]
    return weights.sum(2) / count[:, None, None]
