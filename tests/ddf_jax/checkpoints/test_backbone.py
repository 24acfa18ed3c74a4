"""The weights of a classifier go into the backbone of a detector, in both namings."""

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest

from ddf_jax import models
from ddf_jax.checkpoints import CheckpointError
from ddf_jax.checkpoints.backbone import fit_backbone, is_for_backbone, own_names
from ddf_jax.checkpoints.conversion import expected_shapes
from ddf_jax.checkpoints.fitting import EXACT, FitRules, fit
from ddf_jax.checkpoints.rules import official_tensors
from tests.ddf_jax.models.small import abstract_model
from tests.ddf_jax.models.small_detectors import small

OPTIONS: dict[str, Any] = {"width": 8, "blocks": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def detector() -> dict[str, tuple[int, ...]]:
    return dict(expected_shapes(abstract_model(small("faster_rcnn")), "own"))


@pytest.fixture(scope="module")
def classifier() -> dict[str, np.ndarray]:
    shapes = expected_shapes(abstract_model(models.get_config("resnet50", num_classes=9, **OPTIONS)), "own")
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("naming", ["own", "official"])
def test_all_but_the_head_of_a_classifier_is_the_backbone(detector, classifier, naming: Literal["own", "official"]):
    tensors = classifier if naming == "own" else official_tensors(classifier)
    assert is_for_backbone(detector, tensors)
    arrays, report = fit_backbone(detector, tensors, "file", EXACT)
    assert set(arrays) == {name for name in detector if name.startswith("backbone.")}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, classifier[name.removeprefix("backbone.")])
    assert report.loaded == len(arrays)
    assert set(report.initialised) == set(detector) - set(arrays)
    assert set(report.unused) == ({"head.bias", "head.kernel"} if naming == "own" else {"fc.bias", "fc.weight"})


@pytest.mark.parametrize("naming", ["own", "official"])
def test_names_below_backbone_fit_as_names_without_it(detector, classifier, naming: Literal["own", "official"]):
    tensors = classifier if naming == "own" else official_tensors(classifier)
    headless = {name: tensor for name, tensor in tensors.items() if not name.startswith(("head.", "fc."))}
    prefixed = {f"backbone.{name}": tensor for name, tensor in headless.items()}
    for given in (headless, prefixed):
        assert is_for_backbone(detector, given)
        arrays, report = fit_backbone(detector, given, "file", EXACT)
        assert arrays.keys() == {name for name in detector if name.startswith("backbone.")}
        assert report.unused == ()
    with pytest.raises(CheckpointError, match=r"file has .* with `backbone.` and without; keep one"):
        fit_backbone(detector, headless | prefixed, "file", EXACT)


def test_only_a_detector_has_a_backbone(detector, classifier):
    own = {name: array.shape for name, array in classifier.items()}
    assert own_names(own) == set(own)
    assert own_names(detector) == set(detector) | {name for name in own if not name.startswith("head.")}


def test_weights_of_a_detector_or_for_a_classifier_are_not_for_a_backbone(detector, classifier):
    assert not is_for_backbone(detector, dict.fromkeys(detector, np.zeros(())))
    assert not is_for_backbone({name: array.shape for name, array in classifier.items()}, classifier)


def test_a_fresh_head_of_a_detector_needs_the_weights_of_a_detector(detector, classifier):
    with pytest.raises(CheckpointError, match="`head` is fresh, but file is a classifier's"):
        fit_backbone(detector, classifier, "file", dataclasses.replace(EXACT, head="fresh"))


def test_another_classifier_is_refused_by_name(detector, classifier):
    lacking = {name: array for name, array in classifier.items() if name != "stem.conv.kernel"}
    with pytest.raises(CheckpointError, match=r"missing \(1\): stem.conv.kernel"):
        fit_backbone(detector, lacking, "file", EXACT)
    for pattern in ("stem.*", "backbone.stem.*"):
        arrays, _ = fit_backbone(detector, lacking, "file", FitRules(allow_missing=(pattern,)))
        assert "backbone.stem.conv.kernel" not in arrays
        extra = classifier | {"gate.kernel": np.ones(2, np.float32)}
        more = pattern.replace("stem", "gate")
        assert "gate.kernel" in fit_backbone(detector, extra, "file", FitRules(allow_unexpected=(more,)))[1].unused
    with pytest.raises(CheckpointError, match=r"`allow_missing` 'neck\.\*' matches nothing that is missing"):
        fit_backbone(detector, classifier, "file", FitRules(allow_missing=("neck.*",)))
    wrong = classifier | {"stem.conv.kernel": np.zeros((7, 7, 3, 3), np.float32)}
    with pytest.raises(CheckpointError, match=r"stem.conv.kernel must be \[7, 7, 3, 8\], got \[7, 7, 3, 3\]"):
        fit_backbone(detector, wrong, "file", EXACT)


def test_the_first_convolution_of_a_detector_is_adapted_to_other_channels(detector, classifier):
    name, repeat = "backbone.stem.conv.kernel", FitRules(in_channels="repeat")
    grey = classifier["stem.conv.kernel"].sum(2, keepdims=True)
    arrays, report = fit_backbone(detector, classifier | {"stem.conv.kernel": grey}, "file", repeat)
    assert report.adapted == (name,)
    np.testing.assert_allclose(arrays[name].sum(2), grey[:, :, 0], rtol=1e-5, atol=1e-6)
    of_detector = {key: np.ones(shape, np.float32) for key, shape in detector.items()}
    _, report = fit(detector, of_detector | {name: grey}, "file", repeat)
    assert report.adapted == (name,)
