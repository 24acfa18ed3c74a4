"""Detectors count as MMDetection counts its own: against its numbers, and against formulas for what is special."""

import jax
import pytest
from flax import nnx

from ddf_jax.analysis.counting import complexity, total
from ddf_jax.analysis.detector_counting import SIZE, count_detector
from ddf_jax.models import get_config, list_models

PIXELS = [200 * 320, 100 * 160, 50 * 80, 25 * 40, 13 * 20]  # of P2 to P6
SHALLOW = {"blocks": (1, 1, 1, 1)}


def size(config) -> int:
    """Parameters of the model itself."""
    state = nnx.state(nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0))), nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(state))


# Trained parameters in millions and GFLOPs that mmcv 1.7.2 counts for MMDetection 2.28.2.
@pytest.mark.parametrize(
    ("name", "options", "params", "gigamacs"),
    [
        ("faster_rcnn_resnet50", {}, 41.528, 207.065),
        ("mask_rcnn_resnet101", {}, 63.163, 336.211),
        pytest.param("retinanet_resnet50", {}, 37.743, 239.317, marks=pytest.mark.slow),
        pytest.param("mask_rcnn_rednet50", {"neck": "involution"}, 32.151, 185.048, marks=pytest.mark.slow),
        pytest.param("htc_resnext101_32x4d", {}, 98.664, 521.207, marks=pytest.mark.slow),
    ],
)
def test_counts_are_those_of_mmdetection(name, options, params, gigamacs):
    counted = count_detector(get_config(name, **options))
    assert round(counted.trainable_params / 1e6, 3) == params
    assert round(counted.total.macs_mmcv / 1e9, 3) == gigamacs


def test_stem_and_first_stage_of_the_backbone_are_frozen():
    counted = count_detector(get_config("faster_rcnn_resnet50"))
    assert counted.total.params - counted.trainable_params == 225_344


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("htc_resnet50", {"backbone_options": SHALLOW}, marks=pytest.mark.slow),
        ("panoptic_fpn_rednet50", {"backbone_options": SHALLOW, "neck": "involution", "head": "involution"}),
        *(pytest.param(name, {}, marks=pytest.mark.slow) for name in list_models(task="detection")),
    ],
)
def test_parts_are_the_whole_model(name, options):
    config = get_config(name, **options)
    counted = count_detector(config)
    assert counted.total.params == size(config)
    assert not {part for part, cost in counted.parts.items() if cost.macs_core <= 0}


def test_the_parts_of_one_stage_cost_what_the_model_does_up_to_its_detections():
    config = get_config("retinanet_resnet50", backbone_options=SHALLOW, channels=32, head_depth=1, num_classes=3)
    model = nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))

    class Dense(nnx.Module):
        def __init__(self):
            self.model = model

        def __call__(self, image):
            return self.model.dense(self.model.levels(image))

    assert count_detector(config).total == complexity(Dense(), *config.inputs(*SIZE))


def test_heads_cost_what_their_formulas_state():
    """A ReLU that MMDetection calls as a function costs nothing in mmcv, and neither does a linear layer's bias."""
    channels, classes = 16, 3
    options = {"backbone_options": SHALLOW, "channels": channels, "num_classes": classes}
    parts = count_detector(get_config("mask_rcnn_resnet50", **options)).parts
    core = (9 * channels + 3 * 5) * channels
    assert parts["rpn"].macs_core == sum(PIXELS) * core
    assert parts["rpn"].macs_mmcv == sum(PIXELS) * (core + channels + 3 * 5)
    linear = 49 * channels * 1024 + 1024**2 + 1024 * (5 * classes + 1)
    assert parts["regions.box"].macs_core == 1000 * linear
    assert parts["regions.box"].macs_mmcv == 1000 * (linear + 2 * 1024)  # … + ReLU
    small, large = 100 * 14**2, 100 * 28**2
    assert parts["regions.mask.upsample"].macs_mmcv == (small * 4 * channels + large) * channels
    assert parts["regions.mask.logits"].macs_mmcv == large * (channels + 1) * classes
    of_convolutions = small * 4 * (9 * channels + 2) * channels  # with biases and ReLU
    assert parts["regions.mask"].macs_mmcv == of_convolutions + large * channels


def test_each_stage_of_a_cascade_counts_and_later_mask_heads_take_the_features_of_earlier_ones():
    channels = 16
    options = {"backbone_options": SHALLOW, "channels": channels, "num_classes": 3, "num_semantic": 5}
    parts = count_detector(get_config("htc_resnet50", **options)).parts
    first, *others = (parts[f"regions.masks.{stage}"] for stage in range(3))
    pixels = 100 * 14**2
    assert [other.macs_core - first.macs_core for other in others] == [pixels * channels**2] * 2
    assert [other.macs_mmcv - first.macs_mmcv for other in others] == [pixels * (channels + 2) * channels] * 2
    assert parts["regions.boxes.0"] == parts["regions.boxes.2"]


def test_group_norms_of_the_semantic_head_cost_two_for_each_value_and_its_resizing_nothing():
    options = {"backbone_options": SHALLOW, "channels": 16, "num_stuff": 4, "semantic_channels": 32}
    semantic = count_detector(get_config("panoptic_fpn_resnet50", **options)).parts["semantic"]
    finest, inner, width = PIXELS[0], 32, 16
    macs = finest * (inner * 5 + 5)  # logits with a bias
    for level, pixels in enumerate(PIXELS[:4]):
        for index in range(max(level, 1)):
            inputs = inner if index else width
            macs += pixels * 4**index * inner * (9 * inputs + 3)  # convolution, normalisation, ReLU
    assert semantic.macs_mmcv == macs


def test_parts_can_be_left_out():
    counted = count_detector(get_config("mask_rcnn_resnet50"))
    outputs = ("regions.mask.upsample", "regions.mask.logits")
    left_out = counted.total - counted.total_without(outputs)
    assert left_out == total(counted.parts[name] for name in outputs)
    assert left_out.macs_mmcv == 100 * 28**2 * (256 * 257 + 80 * 257)
