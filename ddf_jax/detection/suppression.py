"""Non-maximum suppression: exact, with static shapes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from ddf_jax.detection.boxes import iou

BLOCK = 256
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
    suppresses = suppresses.astype(jnp.uint8)  # a CPU reduces bytes three times as fast as truth values

    def judge(state: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = state
        judged = live & (jnp.max(suppresses * kept.astype(jnp.uint8)[:, None], axis=0, initial=0) == 0)
        return judged, (judged != kept).any()

    return jax.lax.while_loop(lambda state: state[1], judge, (live, live.any()))[0]


def best_after_nms(
    boxes: Array | Callable[[Array], Array],
    scores: Array,
    live: Array,
    threshold: float,
    count: int,
    group: Array | None = None,
) -> tuple[Array, Array]:
    """The numbers of the first `count` boxes by descending score that NMS keeps, and how many there are.

    Boxes are judged in blocks until there are enough, so that most of them never are.

    Args:
      boxes: [N, 4]; or a function from numbers [n] to boxes [n, 4], so that the others need not be computed.
      scores: [N]; of equal ones the first comes first.
      live: whether a box takes part [N].
      threshold: of the IoU.
      count: K.
      group: [N], as in `nms`.

    Returns:
      [K], 0 beyond the number of boxes, which is the second result [].
    """
    boxes_of = boxes if callable(boxes) else boxes.__getitem__
    size = min(BLOCK, scores.shape[0])
    number_in_block = jnp.arange(size, dtype=jnp.int32)
    candidates = jnp.sum(live, dtype=jnp.int32)

    def judge(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        block, unjudged, kept, number = state
        _, index = jax.lax.top_k(unjudged, size)
        present = block * size + number_in_block < candidates
        judged, of_block = boxes_of(index), None if group is None else group[index]

        def judge_by(part: Array, fallen: Array) -> Array:
            rivals = jax.lax.dynamic_slice(kept, (part * size,), (size,))
            of_rivals = None if group is None else group[rivals]
            overlap = _overlap(boxes_of(rivals), judged, threshold, of_rivals, of_block)
            return fallen | (overlap & (part * size + number_in_block < number)[:, None]).any(0)

        fallen = jax.lax.fori_loop(0, (number + size - 1) // size, judge_by, jnp.zeros(size, bool))
        left = nms(judged, present & ~fallen, threshold, of_block)
        place = jnp.where(left, number + jnp.cumsum(left, dtype=jnp.int32) - 1, len(kept))
        place = jnp.where(place < count, place, len(kept))
        kept = kept.at[place].set(index, mode="drop")
        number = jnp.minimum(number + jnp.sum(left, dtype=jnp.int32), count)
        return block + 1, unjudged.at[index].set(-jnp.inf), kept, number

    def more(state: tuple[Array, Array, Array, Array]) -> Array:
        block, _, _, number = state
        return (number < count) & (block * size < candidates)

    kept = jnp.zeros(-(-count // size) * size, jnp.int32)  # whole parts
    start = jnp.int32(0), jnp.where(live, scores, -jnp.inf), kept, jnp.int32(0)
    _, _, kept, number = jax.lax.while_loop(more, judge, start)
    return kept[:count], number


def _overlap(boxes: Array, others: Array, threshold: float, group: Array | None, other_group: Array | None) -> Array:
    overlap = iou(boxes, others) > threshold
    return overlap if group is None or other_group is None else overlap & (group[:, None] == other_group[None])
