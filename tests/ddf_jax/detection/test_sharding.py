"""Parts of a detector on eight devices: no image is gathered, and numbers and choices are those of one device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.detection.annotations import Truths
from ddf_jax.detection.box_head import DetectionSettings
from ddf_jax.detection.mask_head import mask_targets
from ddf_jax.detection.matching import Matcher
from ddf_jax.detection.regions import choose_regions
from ddf_jax.detection.retina_head import RetinaHead, RetinaSettings
from ddf_jax.detection.roi_align import roi_align
from ddf_jax.detection.rpn import DenseOutputs, ProposalSettings, RPNHead, RPNSettings
from ddf_jax.detection.sampling import Sampler
from ddf_jax.layers import Conv
from ddf_jax.models.slots import partial_layer
from tests.ddf_jax.detection.devices import on_eight, on_one

RNG = np.random.default_rng(0)
SIZE = np.array([[64, 96 - 4 * n] for n in range(8)], np.int32)
SIZES = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
CORNERS = RNG.uniform(0, 60, (8, 20, 2)).astype(np.float32)
BOXES = np.concatenate([CORNERS, CORNERS + RNG.uniform(4, 30, (8, 20, 2)).astype(np.float32)], -1)
LIVE = RNG.random((8, 20)) < 0.9
TRUTHS = Truths(
    jnp.asarray(BOXES[:, :3] + 1),
    jnp.asarray(RNG.integers(0, 4, (8, 3)), jnp.int32),
    jnp.asarray(np.arange(3) < np.arange(8)[:, None] % 4),
    jnp.asarray(RNG.integers(0, 256, (8, 3, 64, 12)), jnp.uint8),
)
KEY = jax.random.key_data(jax.random.key(3))


def dense(anchors, *classes):
    def values(*shape):
        counts = [height * width * anchors for height, width in SIZES]
        return [RNG.standard_normal((8, count, *shape)).astype(np.float32) for count in counts]

    return values(*classes), values(4)


def check(function, *arrays, shared=(), sums=0, modes=("auto", "explicit")):
    """Args: the sums over all images that there may be."""
    expected = on_one(function, *arrays, shared=shared)
    for mode in modes:
        found, collectives = on_eight(mode, function, *arrays, shared=shared)
        assert set(collectives) <= {"all-reduce"}
        assert sum(collectives.values()) <= sums, collectives
        for value, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(value, theirs, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
def test_regions_are_aligned_where_their_image_is_and_gradients_too():
    features = [RNG.standard_normal((8, *size, 3)).astype(np.float32) for size in SIZES[:2]]
    levels = np.where(LIVE, RNG.integers(0, 2, (8, 20)), -1)

    def function(features, boxes, levels, shared):
        def aligned(features):
            return roi_align(features, boxes, levels, (4, 8), 7)

        y, pull_back = jax.vjp(aligned, features)
        return y, pull_back(jnp.sin(y))

    check(function, features, BOXES, levels)


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [True, False])
def test_anchors_and_proposals_are_chosen_where_their_image_is(ordered):
    settings = RPNSettings(sampler=Sampler(32, 0.5), whole=True)
    options = {"conv": partial_layer(Conv), "settings": settings}
    head = nnx.eval_shape(lambda: RPNHead(4, **options, rngs=nnx.Rngs(0)))

    def function(logits, deltas, size, truths, key):
        outputs = DenseOutputs(logits, deltas, SIZES)
        targets = head.targets(outputs, size, truths, None if ordered else jax.random.wrap_key_data(key))
        return head.propose(outputs, size, ProposalSettings(60, 30)), targets

    check(function, *dense(3), SIZE, TRUTHS, shared=KEY)


@pytest.mark.slow
def test_losses_of_anchors_are_sums_over_all_devices():
    options = {"conv": partial_layer(Conv), "settings": RPNSettings()}
    head = nnx.eval_shape(lambda: RPNHead(4, **options, rngs=nnx.Rngs(0)))

    def function(logits, deltas, size, truths, _):
        outputs = DenseOutputs(logits, deltas, SIZES)
        return head.loss(outputs, head.targets(outputs, size, truths, None))

    check(function, *dense(3), SIZE, TRUTHS, sums=11)


@pytest.mark.parametrize(
    ("ordered", "mode"),
    [
        pytest.param(ordered, mode, marks=() if (ordered, mode) == (False, "auto") else pytest.mark.slow)
        for ordered in (True, False)
        for mode in ("auto", "explicit")
    ],
)
def test_regions_are_chosen_where_their_image_is(ordered, mode):
    def function(boxes, live, truths, key):
        key = None if ordered else jax.random.wrap_key_data(key)
        regions = choose_regions(Matcher(0.5, 0.5, 0.5), Sampler(16, 0.25), 4, boxes, live, truths, key)
        return regions, mask_targets(truths.masks, 96, regions, 4)

    check(function, BOXES, LIVE, TRUTHS, shared=KEY, modes=(mode,))


@pytest.mark.slow
def test_random_choices_differ_between_keys_and_images():
    def function(key):
        truths = jax.tree.map(lambda x: jnp.broadcast_to(x[3:4], x.shape), TRUTHS)
        boxes = jnp.broadcast_to(BOXES[3:4], BOXES.shape)
        live = jnp.ones(boxes.shape[:2], bool)
        return choose_regions(Matcher(0.5, 0.5, 0.5), Sampler(8, 0.25), 4, boxes, live, truths, key).sample.boxes

    first, second = (np.sort(function(jax.random.key(seed)), axis=1) for seed in (0, 1))
    assert len({tuple(image) for image in first}) > 4
    assert (first != second).any(1).sum() > 4


@pytest.mark.slow
def test_detections_are_chosen_where_their_image_is():
    settings = RetinaSettings(before_nms=50, detection=dataclasses.replace(DetectionSettings(), count=10))
    options = {"conv": partial_layer(Conv), "depth": 1, "settings": settings}
    head = nnx.eval_shape(lambda: RetinaHead(4, 3, **options, rngs=nnx.Rngs(0)))

    def function(logits, deltas, size, _):
        return head.detect(DenseOutputs(logits, deltas, SIZES), size)

    check(function, *dense(9, 3), SIZE)
