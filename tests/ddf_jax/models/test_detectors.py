"""All registered detectors: pinned names and counts, options, losses and detections of small ones."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.detection.frozen import FROZEN
from ddf_jax.detection.matching import Matcher
from ddf_jax.errors import UserError
from ddf_jax.models import abstract, create, get_config
from ddf_jax.models.detectors import FAMILIES, HEADS, NECKS, UPSAMPLERS
from ddf_jax.training.freezing import Unfrozen
from tests.ddf_jax.models.small import abstract_model
from tests.ddf_jax.models.small_detectors import SIZES, batch, detections, drawn, losses_and_gradients, slow_but, small

FAST = "retinanet"
LOSSES = {
    "retinanet": {"loss_cls", "loss_bbox"},
    "faster_rcnn": {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox"},
    "mask_rcnn": {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"},
    "htc": {"loss_rpn_cls", "loss_rpn_bbox", "loss_semantic_seg"}
    | {f"s{stage}.{name}" for stage in range(3) for name in ("loss_cls", "loss_bbox", "loss_mask")},
    "panoptic_fpn": {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask", "loss_seg"},
}


@pytest.fixture(scope="module")
def results():
    """Losses, gradients and detections by family, each computed once."""
    known: dict[Any, Any] = {}

    def of(family, **options):
        key = family, *options.items()
        if key not in known:
            structure, state = drawn(small(family, **options))

            @jax.jit
            def program(state, of):
                return losses_and_gradients(structure, state, of), detections(structure, state, of)

            known[key] = lambda of: jax.tree.map(np.asarray, program(state, of))
        return known[key]

    return of


@pytest.mark.parametrize("family", slow_but([FAST], FAMILIES))
def test_every_trained_parameter_gets_a_gradient_from_odd_sized_images(results, family):
    (losses, gradients), found = results(family)(batch())
    assert set(losses) == LOSSES[family]
    assert all(np.isfinite(loss).all() and loss.sum() > 0 for loss in losses.values())
    trained = nnx.state(abstract_model(small(family)), nnx.All(nnx.Param, Unfrozen(FROZEN)))
    assert set(gradients) == {".".join(map(str, path)) for path, _ in nnx.to_flat_state(trained)}
    for path, gradient in gradients.items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path
    check_detections(found, family)


def check_detections(found, family, dtype: Any = np.float32):
    assert (found.number > 0).all()
    for boxes, scores, labels, number, size in zip(*found[:4], SIZES, strict=True):
        boxes, scores, labels = boxes[:number], scores[:number], labels[:number]
        assert (boxes >= 0).all()
        assert (boxes <= np.tile(size[::-1], 2)).all()
        assert (boxes[:, 2:] >= boxes[:, :2]).all()
        assert (np.diff(scores) <= 0).all()
        assert (scores <= 1).all()
        assert ((labels >= 0) & (labels < 5)).all()
    assert {found.boxes.dtype, found.scores.dtype} == {np.dtype(dtype)}
    assert (found.masks is not None) == (family not in ("retinanet", "faster_rcnn"))
    assert (found.semantic is not None) == (family == "panoptic_fpn")
    if found.masks is not None:
        assert found.masks.shape[2:] == (28, 28)
        assert found.masks.dtype == dtype
    if found.semantic is not None:
        assert found.semantic.shape == (2, 19, 26, 4)


def assert_equal(found, expected, rtol=0.0):
    for value, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(value, theirs, rtol=rtol, atol=rtol * max(np.abs(theirs).max(), 1e-6))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_without_an_object_do_not_touch_a_value(results, family):
    """However many there are, and whatever they hold."""
    (losses, gradients), _ = results(family)(batch())
    (more, of_more), _ = results(family)(batch(padding=5))
    assert_equal(more, losses, rtol=1e-5)
    assert_equal(of_more, gradients, rtol=1e-4)


@pytest.mark.parametrize("family", slow_but([FAST], FAMILIES))
def test_images_without_objects_have_finite_losses_and_gradients(results, family):
    (losses, gradients), _ = results(family)(batch(objects=False))
    for name, value in (losses | gradients).items():
        assert np.isfinite(value).all(), name
    for name in losses:
        if "bbox" in name or "mask" in name:
            assert not losses[name].any(), name


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_is_judged_alone(results, family):
    """The second image is replaced by nothing, as where a batch is filled up."""
    _, found = results(family)(batch())
    of = batch()
    _, other = results(family)(of._replace(image=of.image.at[1].set(0), size=of.size.at[1].set(0)))
    assert_equal(*(jax.tree.map(lambda x: x[0], d) for d in (other, found)), rtol=1e-5)
    assert other.number[1] == 0


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_computes_boxes_scores_and_losses_in_float32(results, family):
    (losses, gradients), found = results(family, dtype=jnp.bfloat16)(batch())
    (exact, _), _ = results(family)(batch())
    assert {value.dtype for value in (*losses.values(), *gradients.values())} == {np.dtype(np.float32)}
    check_detections(found, family)
    for name, loss in losses.items():
        np.testing.assert_allclose(loss.sum(), exact[name].sum(), rtol=0.5, err_msg=name)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_is_float64_to_rounding(results, family):
    options, config = {}, small(family)
    if hasattr(config, "rpn"):  # of the best anchors of an object many have the same IoU but for rounding
        options = {"rpn": dataclasses.replace(config.rpn, matcher=Matcher(0.5, 0.3))}
    (losses, gradients), found = results(family, **options)(batch())
    with jax.enable_x64(True):
        wide = {"dtype": jnp.float64, "param_dtype": jnp.float64, **options}
        (exact, of_exact), expected = results(family, **wide)(batch(dtype=np.float64))
    assert_equal(losses, exact, rtol=1e-4)
    assert_equal(gradients, of_exact, rtol=1e-3)
    np.testing.assert_array_equal(found.number, expected.number)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    check_detections(expected, family, np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_choice_depends_on_the_keys_alone(family):
    structure, state = drawn(small(family))

    @jax.jit
    def losses(state, of):
        model = nnx.merge(structure, state, copy=True)
        model.train()
        model.backbone.eval()
        return [sum(loss.sum() for loss in model.loss(*of).values()) for _ in range(2)]

    first, second = losses(state, batch())
    assert losses(state, batch()) == [first, second]
    assert (first != second) == (family != "retinanet")


SEVEN: dict[str, Any] = {"stem_kernel_size": 7, "backbone_options": {"width": 32, "blocks": (1,) * 4}}

# One detector for each value of an option; the rest of a family is the same.
OPTIONS = [
    *(("faster_rcnn", {"neck": neck}) for neck in NECKS if neck != "convolution"),
    *(("mask_rcnn", {"head": head}) for head in HEADS if head != "convolution"),
    ("retinanet", {"head": "involution"}),
    *(("retinanet", {"upsampler": upsampler}) for upsampler in UPSAMPLERS if upsampler != "nearest"),
    (
        "retinanet",
        {"backbone": "rednet50", "stem_kernel_size": 7, "backbone_options": {"width": 32, "blocks": (1,) * 4}},
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "options"), OPTIONS, ids=str)
def test_every_trained_parameter_gets_a_gradient_with_every_option(family, options):
    structure, state = drawn(small(family, **options))
    losses, gradients = jax.jit(lambda state, of: losses_and_gradients(structure, state, of))(state, batch())
    assert set(losses) == LOSSES[family]
    for path, gradient in gradients.items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


def test_options_are_where_they_belong():
    model = abstract_model(small("mask_rcnn", backbone="rednet50", neck="involution", upsampler="carafe", **SEVEN))
    kinds = [type(module).__name__ for module in (*model.neck.outputs, *model.neck.upsamplers)]
    assert kinds == ["Involution"] * 4 + ["CARAFE"] * 3
    assert type(model.rpn.conv).__name__ == "Conv"
    assert model.backbone.stem.conv2.spatial_branch.span.kernel.shape[-1] == 7 * 7
    model = abstract_model(small("retinanet", head="bivolution"))
    assert {type(conv).__name__ for conv in (*model.dense.class_convs, *model.dense.box_convs)} == {"Bivolution"}
    assert [type(module).__name__ for module in model.neck.outputs] == ["Conv"] * 5


def test_a_head_is_an_option_of_a_detector_and_otherwise_the_checkpoints():
    with_involutions = abstract("mask_rcnn_resnet50", head="involution")
    assert type(with_involutions.rpn.conv).__name__ == "Involution"
    assert with_involutions.config == get_config("mask_rcnn_resnet50", head="involution")
    for head in ("loaded", "fresh"):
        assert abstract("mask_rcnn_resnet50", head=head).config == get_config("mask_rcnn_resnet50")
    with pytest.raises(UserError, match=r"`head` must be one of convolution, involution, bivolution, got 'frsh'"):
        abstract("mask_rcnn_resnet50", head="frsh")
    with pytest.raises(UserError, match="'resnet18' has no option 'head'"):
        create("resnet18", head="frsh", rngs=nnx.Rngs(0))


def test_unknown_options_and_single_images_are_refused():
    with pytest.raises(UserError, match="`neck` must be one of convolution, dcdc, involution, bivolution, got 'fpn'"):
        get_config("faster_rcnn_resnet50", neck="fpn")
    with pytest.raises(UserError, match="has no option 'hed'"):
        create("retinanet_resnet50", hed="involution", rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match=r"must be \[B, H, W, C\] with C = 3, got \(75, 101, 3\)"):
        nnx.eval_shape(lambda m: m(batch().image[0]), abstract_model(small("retinanet")))


@pytest.mark.parametrize(
    ("family", "missing"), [("mask_rcnn", "masks"), ("htc", "masks"), ("panoptic_fpn", "semantic"), ("htc", "semantic")]
)
def test_missing_truths_are_refused(family, missing):
    of = batch()
    truths = of.truths._replace(**{missing: None})
    with pytest.raises(ValueError, match=f"`truths.{missing}` must be given to train a head on it, got None"):
        nnx.eval_shape(lambda m: m.loss(of.image, of.size, truths), abstract_model(small(family)))


def test_configurations_can_be_compared_and_replaced():
    assert get_config("htc_resnet50") == dataclasses.replace(FAMILIES["htc"], backbone="resnet50")
    assert hash(get_config("htc_resnet50", backbone_options={"width": 8})) == hash(get_config("htc_resnet50"))
    assert get_config("htc_resnet50", backbone_options={"width": 8}) != get_config("htc_resnet50")
    assert get_config("mask_rcnn_rednet50").task == "detection"
    [image] = get_config("retinanet_resnet50").inputs(64, 96)
    assert (image.shape, image.dtype) == ((1, 64, 96, 3), jnp.float32)
