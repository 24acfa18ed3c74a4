"""All registered detectors: names, and counts of parameters, pinned and published."""

import jax
import pytest
from flax import nnx

from ddf_jax.detection.frozen import FROZEN
from ddf_jax.models import abstract, list_models
from ddf_jax.models.detectors import FAMILIES
from ddf_jax.training.freezing import Unfrozen
from tests.ddf_jax.models.pinned import DETECTORS
from tests.ddf_jax.models.small_detectors import slow_but


def counted(model, *filters) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.All(nnx.Param, *filters))))


def test_every_registered_detector_is_pinned():
    assert set(list_models(task="detection")) == set(DETECTORS)


@pytest.mark.parametrize("name", slow_but([f"{family}_resnet50" for family in FAMILIES], DETECTORS))
def test_parameters_of_the_whole_model_are_as_many_as_counted(name):
    model = abstract(name)
    assert counted(model) == DETECTORS[name]
    if name.endswith("_resnet50") and "_ddf_" not in name and "_dcdc_" not in name:
        assert counted(model, Unfrozen(FROZEN)) == DETECTORS[name] - 225_344  # the stem and the first stage


INVOLUTION, DCDC = {"neck": "involution"}, {"neck": "dcdc"}
BOTH = {"neck": "involution", "head": "involution", "stem_kernel_size": 7}


# Trainable parameters in millions, of the tables of DCDC and of the involution repository.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "millions"),
    [
        ("retinanet_resnet101", {}, 56.735),
        ("retinanet_rednet50", {}, 27.814),
        ("retinanet_rednet50", INVOLUTION, 26.246),
        ("retinanet_dcdc_resnet50", {}, 28.061),
        ("retinanet_dcdc_resnet50", DCDC, 26.542),
        ("retinanet_dcdc_resnet26", DCDC, 20.183),
        ("faster_rcnn_resnet101", {}, 60.520),
        ("faster_rcnn_rednet50", {}, 31.598),
        ("faster_rcnn_rednet50", INVOLUTION, 29.508),
        ("faster_rcnn_rednet50", BOTH, 28.985),
        ("faster_rcnn_dcdc_resnet50", {}, 31.845),
        ("faster_rcnn_dcdc_resnet50", DCDC, 29.820),
        ("faster_rcnn_dcdc_resnet26", DCDC, 23.461),
        ("mask_rcnn_resnet101", {}, 63.163),
        ("mask_rcnn_rednet50", {}, 34.242),
        ("mask_rcnn_rednet50", INVOLUTION, 32.151),
        ("mask_rcnn_rednet50", BOTH, 29.538),
        ("mask_rcnn_dcdc_resnet50", {}, 34.488),
        ("mask_rcnn_dcdc_resnet50", DCDC, 32.463),
        ("mask_rcnn_dcdc_resnet26", DCDC, 26.104),
        ("htc_resnet101", {}, 99.025),
        ("htc_resnext101_32x4d", {}, 98.664),
        ("htc_dcdc_resnet50", DCDC, 68.325),
        ("panoptic_fpn_resnet101", {}, 64.79),
        ("panoptic_fpn_rednet50", INVOLUTION, 33.78),
        ("panoptic_fpn_dcdc_resnet50", DCDC, 34.09),
    ],
    ids=str,
)
def test_trainable_parameters_are_those_published(name, options, millions):
    digits = 2 if name.startswith("panoptic") else 3
    assert round(counted(abstract(name, **options), Unfrozen(FROZEN)) / 1e6, digits) == millions
