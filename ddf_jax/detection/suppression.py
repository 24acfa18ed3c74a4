"""Non-maximum suppression: exact, with static shapes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ddf_jax.detection.boxes import iou

BLOCK = 128
"""Boxes that are judged at once."""
RIVALS = 256
"""Kept boxes that a block is judged by at once."""
RANKED = 1024
"""Boxes that are chosen from all at once: hardly dearer than a block of them."""

Function = Callable[[Array], Array]


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
    boxes: Array | Function,
    scores: Array,
    live: Array,
    threshold: float,
    count: int,
    group: Array | Function | None = None,
) -> tuple[Array, Array]:
    """The numbers of the first `count` boxes by descending score that NMS keeps, and how many there are.

    Boxes are ranked and judged in blocks until there are enough, so that most of them never are.

    Args:
      boxes: [N, 4]; or a function from numbers [n] to boxes [n, 4], so that the others need not be computed.
      scores: [N]; of equal ones the first comes first.
      live: whether a box takes part [N].
      threshold: of the IoU.
      count: K.
      group: [N], as in `nms`, or a function as for boxes.

    Returns:
      [K], 0 beyond the number of boxes, which is the second result [].
    """
    size = min(BLOCK, scores.shape[0])
    blocks = min(RANKED // BLOCK, scores.shape[0] // size)  # that are ranked at once
    together = min(RIVALS, count)
    number_in_block, number_in_part = (jnp.arange(length, dtype=jnp.int32) for length in (size, together))
    candidates = jnp.sum(live, dtype=jnp.int32)

    def judge(ranked: Array, first: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        block, kept, number = state
        index = jax.lax.dynamic_slice(ranked, (block * size,), (size,))
        present = first + block * size + number_in_block < candidates
        judged, of_block = _of(boxes, index), _of(group, index)

        def judge_by(part: Array, fallen: Array) -> Array:
            rivals = jax.lax.dynamic_slice(kept, (part * together,), (together,))
            overlap = _overlap(_of(boxes, rivals), judged, threshold, _of(group, rivals), of_block)
            return fallen | (overlap & (part * together + number_in_part < number)[:, None]).any(0)

        fallen = jax.lax.fori_loop(0, (number + together - 1) // together, judge_by, jnp.zeros(size, bool))
        left = nms(judged, present & ~fallen, threshold, of_block)
        place = jnp.where(left, number + jnp.cumsum(left, dtype=jnp.int32) - 1, len(kept))
        place = jnp.where(place < count, place, len(kept))
        number = jnp.minimum(number + jnp.sum(left, dtype=jnp.int32), count)
        return block + 1, kept.at[place].set(index, mode="drop"), number

    def rank(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        first, unranked, kept, number = state
        _, ranked = jax.lax.top_k(unranked, blocks * size)

        def more(state: tuple[Array, Array, Array]) -> Array:
            block, _, number = state
            return (block < blocks) & (number < count) & (first + block * size < candidates)

        start = jnp.int32(0), kept, number
        _, kept, number = jax.lax.while_loop(more, functools.partial(judge, ranked, first), start)
        return first + blocks * size, unranked.at[ranked].set(-jnp.inf), kept, number

    def more(state: tuple[Array, Array, Array, Array]) -> Array:
        first, _, _, number = state
        return (number < count) & (first < candidates)

    kept = jnp.zeros(-(-count // together) * together, jnp.int32)  # whole parts
    start = jnp.int32(0), jnp.where(live, scores, -jnp.inf), kept, jnp.int32(0)
    _, _, kept, number = jax.lax.while_loop(more, rank, start)
    return kept[:count], number


def _of(values: Array | Function | None, numbers: Array) -> Any:
    return values(numbers) if callable(values) else None if values is None else values[numbers]


def _overlap(boxes: Array, others: Array, threshold: float, group: Array | None, other_group: Array | None) -> Array:
    overlap = iou(boxes, others) > threshold
    return overlap if group is None or other_group is None else overlap & (group[:, None] == other_group[None])
