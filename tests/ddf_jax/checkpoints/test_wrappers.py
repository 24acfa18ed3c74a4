"""What frameworks put around a module, in files of detectors, of their backbones and of classifiers."""

import pytest

from ddf_jax.checkpoints.tensor_files import CheckpointError
from ddf_jax.checkpoints.wrappers import without_wrappers

DETECTOR = ("backbone.conv1.weight", "backbone.layer1.0.bn1.bias", "neck.lateral_convs.0.conv.weight")
HEADS = ("rpn_head.rpn_cls.bias", "roi_head.bbox_head.fc_cls.weight")


@pytest.mark.parametrize("wrapper", ["", "module.", "model.", "_orig_mod.module."])
def test_the_backbone_of_a_detector_stays(wrapper):
    found = without_wrappers([wrapper + name for name in DETECTOR + HEADS])
    assert found == {wrapper + name: name for name in DETECTOR + HEADS}


@pytest.mark.parametrize("wrapper", ["backbone.", "module.backbone.", "encoder."])
def test_the_backbone_of_a_classifier_is_a_wrapper(wrapper):
    names = ["conv1.weight", "layer1.0.bn1.bias"]
    assert without_wrappers([f"{wrapper}{name}" for name in names]) == {f"{wrapper}{name}": name for name in names}
    found = without_wrappers([f"{wrapper}conv1.weight", "head.fc.weight", "module.fc.bias"])
    assert list(found.values()) == ["conv1.weight", "fc.weight", "fc.bias"]


def test_a_detector_and_a_classifier_of_our_own_names():
    ours = ["backbone.stem.conv.kernel", "neck.laterals.0.bias", "regions.box.hidden1.kernel"]
    assert list(without_wrappers(ours).values()) == ours
    assert list(without_wrappers(["backbone.stem.conv.kernel"]).values()) == ["stem.conv.kernel"]


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_a_classifier_behind_dropout_is_the_one_without(wrapper):
    assert without_wrappers([f"{wrapper}classifier.1.cls.bias"]) == {
        f"{wrapper}classifier.1.cls.bias": "classifier.0.cls.bias"
    }


def test_two_names_that_become_one_are_refused():
    with pytest.raises(CheckpointError, match=r"conv1\.weight and backbone\.conv1\.weight are both conv1\.weight"):
        without_wrappers(["conv1.weight", "backbone.conv1.weight"])
