"""What a detector learns from and what it finds, padded to static shapes."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class Truths(NamedTuple):
    """The annotated objects of a batch.

    Args:
      boxes: corners (x1, y1, x2, y2) in pixels of the batch's images [B, M, 4].
      labels: from 0 [B, M].
      known: whether there is an object, not padding [B, M].
      masks: of the objects, 8 pixels of a row in a byte as by `np.packbits` [B, M, H, ⌈W/8⌉] uint8; None where no
        masks are learned.
      semantic: the class of each pixel, 255 where it does not count [B, H, W] uint8; None where it is not learned.
    """

    boxes: Array
    labels: Array
    known: Array
    masks: Array | None = None
    semantic: Array | None = None

    def given(self, name: str) -> Array:
        """`masks` or `semantic`, which a head is trained on.

        Raises:
          ValueError: it is None.
        """
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"`truths.{name}` must be given to train a head on it, got None.")
        return value


class Proposals(NamedTuple):
    """Boxes that may hold an object, by descending score.

    Args:
      boxes: [B, P, 4]; those beyond `number` are padding.
      scores: [B, P].
      number: of boxes [B].
    """

    boxes: Array
    scores: Array
    number: Array

    @property
    def live(self) -> Array:
        """Whether a box is no padding [B, P]."""
        return jnp.arange(self.boxes.shape[1], dtype=self.number.dtype)[None] < self.number[:, None]


class Detections(NamedTuple):
    """The objects that are found in a batch, by descending score.

    Args:
      boxes: [B, D, 4] in pixels of the batch's images; those beyond `number` are padding.
      scores: probabilities [B, D].
      labels: from 0 [B, D].
      number: of detections [B].
      masks: probabilities [B, D, 28, 28] within each box; None without a mask head.
      semantic: logits of a semantic segmentation [B, H/4, W/4, classes]; None without one.
    """

    boxes: Array
    scores: Array
    labels: Array
    number: Array
    masks: Array | None = None
    semantic: Array | None = None
