"""The best boxes after suppression, against a loop over single boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddf_jax.detection import suppression
from ddf_jax.detection.suppression import best_after_nms
from tests.ddf_jax.detection.test_boxes import drawn, overlap

COUNT = 24


def looped(boxes, scores, live, threshold, count, group):
    kept = []
    for n in np.argsort(-scores, kind="stable"):
        rivals = [m for m in kept if group is None or group[m] == group[n]]
        if live[n] and all(overlap(boxes[m], boxes[n]) <= threshold for m in rivals):
            kept.append(n)
    return kept[:count]


def compiled():
    return jax.jit(lambda *arguments: best_after_nms(*arguments), static_argnums=(3, 4))


def found_by(best, boxes, scores, live, threshold, count, group):
    with jax.enable_x64(True):
        kept, number = best(boxes, scores, live, threshold, count, group)
    assert kept.shape == (count,)
    assert not kept[number:].any()
    return kept[:number].tolist()


def case(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 8, COUNT) / 8  # ties
    return drawn(COUNT, seed, 16, 2.0), scores, rng.random(COUNT) < 0.9, rng.integers(0, 2, COUNT)


@pytest.fixture(scope="module", params=[1024, 5])
def best(request):
    """The function, compiled to judge all boxes at once, or a part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suppression, "BLOCK", request.param)
        yield compiled()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), options=st.sampled_from([(True, 3), (False, 30)]))
def test_the_best_boxes_are_those_of_a_loop(best, seed, options):
    grouped, count = options
    boxes, scores, live, group = case(seed)
    arguments = boxes, scores, live, 0.5, count, group if grouped else None
    assert found_by(best, *arguments) == looped(*arguments)


def test_no_box_and_no_box_that_takes_part_give_none(best):
    boxes, scores, live, group = case(0)
    assert found_by(best, boxes, scores, 0 * live > 0, 0.5, 3, group) == []
    with jax.enable_x64(True):
        kept, number = best(jnp.zeros((1, 4)), jnp.zeros(1), jnp.zeros(1, bool), 0.5, 4)
    assert (kept.tolist(), number.item()) == ([0, 0, 0, 0], 0)


def test_blocks_are_judged_until_there_are_enough(monkeypatch):
    """Boxes far apart: the first block has enough, so that the others, here not finite, are never looked at."""
    monkeypatch.setattr(suppression, "BLOCK", 4)
    corners = 10.0 * np.arange(12)[:, None]
    boxes = np.concatenate([corners, corners, corners + 5, corners + 5], 1)
    judged = []
    monkeypatch.setattr(suppression, "nms", lambda boxes, live, *_: (jax.debug.callback(judged.append, boxes), live)[1])
    assert found_by(compiled(), boxes, -np.arange(12.0), np.ones(12, bool), 0.5, 4, None) == [0, 1, 2, 3]
    jax.effects_barrier()
    assert len(judged) == 1
