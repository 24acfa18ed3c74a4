"""Non-maximum suppression: exact, with static shapes."""

import jax
import jax.numpy as jnp
from jax import Array

from ddf_jax.detection.boxes import iou

BLOCK = 1024
"""Boxes that are judged at once."""


def nms(boxes: Array, live: Array, threshold: float, group: Array | None = None) -> Array:
    """Which of the boxes are kept: [N]. A box falls where its IoU with a kept one before it is above the threshold.

    It is a fixed point: all boxes are judged at once by those kept so far until nothing changes, after a few rounds
    for the boxes of a detector. Exact, unlike offsets of the groups in float32.

    Args:
      boxes: [N, 4], by descending score.
      live: whether a box takes part [N].
      threshold: of the IoU.
      group: [N]; boxes of different groups, such as classes or levels, do not suppress each other.
    """
    count = len(boxes)
    before = jnp.arange(count)[:, None] < jnp.arange(count)[None]
    suppresses = _overlap(boxes, boxes, threshold, group, group) & before & live[:, None]

    def judge(state: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = state
        judged = live & ~(suppresses & kept[:, None]).any(0)
        return judged, (judged != kept).any()

    return jax.lax.while_loop(lambda state: state[1], judge, (live, live.any()))[0]


def best_after_nms(
    boxes: Array, scores: Array, live: Array, threshold: float, count: int, group: Array | None = None
) -> tuple[Array, Array]:
    """The numbers of the first `count` boxes by descending score that NMS keeps, and how many there are.

    Boxes are judged in blocks until there are enough, so that most of them never are.

    Args:
      boxes: [N, 4].
      scores: [N]; of equal ones the first comes first.
      live: whether a box takes part [N].
      threshold: of the IoU.
      count: K.
      group: [N], as in `nms`.

    Returns:
      [K], 0 beyond the number of boxes, which is the second result [].
    """
    total = len(boxes)
    order = jnp.argsort(jnp.where(live, -scores, jnp.inf), stable=True).astype(jnp.int32)
    size = min(BLOCK, total)
    order = jnp.pad(order, (0, -total % size))
    candidates = jnp.sum(live, dtype=jnp.int32)

    def judge(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        block, kept, number = state
        first = block * size
        index = jax.lax.dynamic_slice(order, (first,), (size,))
        present = first + jnp.arange(size, dtype=jnp.int32) < candidates
        of_block, of_kept = (None, None) if group is None else (group[index], group[kept])
        fallen = _overlap(boxes[kept], boxes[index], threshold, of_kept, of_block)
        fallen &= (jnp.arange(count, dtype=jnp.int32) < number)[:, None]
        left = nms(boxes[index], present & ~fallen.any(0), threshold, of_block)
        place = jnp.where(left, number + jnp.cumsum(left, dtype=jnp.int32) - 1, count)
        kept = kept.at[place].set(index, mode="drop")
        return block + 1, kept, jnp.minimum(number + jnp.sum(left, dtype=jnp.int32), count)

    def more(state: tuple[Array, Array, Array]) -> Array:
        block, _, number = state
        return (number < count) & (block * size < candidates)

    start = jnp.int32(0), jnp.zeros(count, jnp.int32), jnp.int32(0)
    _, kept, number = jax.lax.while_loop(more, judge, start)
    return kept, number


def _overlap(boxes: Array, others: Array, threshold: float, group: Array | None, other_group: Array | None) -> Array:
    overlap = iou(boxes, others) > threshold
    return overlap if group is None or other_group is None else overlap & (group[:, None] == other_group[None])
