"""Boxes as corners (x1, y1, x2, y2) in pixels, [..., 4]; the right and lower sides are not part of a box.

MMDetection's functions in plain JAX: the same operations in the same order, as ties of IoUs decide assignments.
"""

import dataclasses
import math

import jax.numpy as jnp
from jax import Array

MAX_RATIO = math.log(1000 / 16)
"""Of a decoded side to that of its anchor, as a logarithm: in both directions."""


def area(boxes: Array) -> Array:
    """[..., 4] to [...], in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(boxes: Array, others: Array) -> Array:
    """The intersection over union of each box with each other one: [..., N, 4] and [..., M, 4] to [..., N, M].

    0 where both have no area.
    """
    boxes, others = boxes[..., :, None, :], others[..., None, :, :]
    sides = jnp.minimum(boxes[..., 2:], others[..., 2:]) - jnp.maximum(boxes[..., :2], others[..., :2])
    sides = jnp.maximum(sides, 0)
    overlap = sides[..., 0] * sides[..., 1]
    union = area(boxes) + area(others) - overlap
    return overlap / jnp.maximum(union, 1e-6)  # as MMDetection's, no smaller union counts


def clip(boxes: Array, size: Array) -> Array:
    """Boxes [..., N, 4] inside images of a size (height, width) [..., 2]."""
    limits = jnp.concatenate([size[..., ::-1], size[..., ::-1]], axis=-1).astype(boxes.dtype)
    return jnp.clip(boxes, 0, limits[..., None, :])


@dataclasses.dataclass(frozen=True)
class BoxCoder:
    r"""Boxes relative to anchors: (dx, dy, log dw, log dh), divided by `deviations`.

    .. math:: dx = \frac{x - x_a}{w_a}, \quad dw = \log \frac{w}{w_a}

    with the centres x, y and the sides w, h of a box and of its anchor a.
    """

    deviations: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def encode(self, anchors: Array, boxes: Array) -> Array:
        """[..., 4] and [..., 4] to [..., 4]."""
        centre, side = _centre(anchors), anchors[..., 2:] - anchors[..., :2]
        shift = (_centre(boxes) - centre) / side
        scale = jnp.log((boxes[..., 2:] - boxes[..., :2]) / side)
        values = jnp.concatenate([shift, scale], axis=-1)
        return jnp.stack([values[..., n] / deviation for n, deviation in enumerate(self.deviations)], axis=-1)

    def decode(self, anchors: Array, values: Array) -> Array:
        """[..., 4] and [..., 4] to [..., 4]; sides are at most `MAX_RATIO` away from the anchor's."""
        values = jnp.stack([values[..., n] * deviation for n, deviation in enumerate(self.deviations)], axis=-1)
        side = anchors[..., 2:] - anchors[..., :2]
        centre = _centre(anchors) + side * values[..., :2]
        side = side * jnp.exp(jnp.clip(values[..., 2:], -MAX_RATIO, MAX_RATIO))
        return jnp.concatenate([centre - side * 0.5, centre + side * 0.5], axis=-1)


def _centre(boxes: Array) -> Array:
    return (boxes[..., :2] + boxes[..., 2:]) * 0.5
