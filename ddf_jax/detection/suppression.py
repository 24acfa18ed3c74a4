"""Non-maximum suppression: exact, with static shapes, on the matrix of all IoUs."""

import jax
import jax.numpy as jnp
from jax import Array

from ddf_jax.detection.boxes import iou


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
    suppresses = (iou(boxes, boxes) > threshold) & (jnp.arange(count)[:, None] < jnp.arange(count)[None])
    if group is not None:
        suppresses &= group[:, None] == group[None]
    suppresses &= live[:, None]

    def judge(state: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = state
        judged = live & ~(suppresses & kept[:, None]).any(0)
        return judged, (judged != kept).any()

    return jax.lax.while_loop(lambda state: state[1], judge, (live, live.any()))[0]
