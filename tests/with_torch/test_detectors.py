"""Detectors against their ports: the numbers are the same, and a difference is found and named."""

from typing import Any

import pytest
import torch

from ddf_jax.errors import UserError
from ddf_jax.torch_port import detection
from ddf_jax.verify import format_table, verify
from ddf_jax.verify.parity import _find
from ddf_jax.verify.upsamplers import UPSAMPLERS

TINY: dict[str, Any] = {"blocks": (1, 1, 1, 1), "width": 8, "channels": 32, "num_classes": 5}
CLASSES = {"htc": {"num_semantic": 6}, "panoptic_fpn": {"num_stuff": 2}}
INVOLUTIONS = {"neck": "involution", "head": "involution"}
FAMILIES = ("retinanet", "faster_rcnn", "mask_rcnn", "htc", "panoptic_fpn")


def checked(name, **arguments):
    [report] = verify(name, **arguments)
    assert report.passed, format_table([report])
    return report


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("retinanet_resnet50", {}),
        *(pytest.param(f"{f}_resnet50", CLASSES.get(f, {}), marks=pytest.mark.slow) for f in FAMILIES[1:]),
        pytest.param("mask_rcnn_rednet50", {**INVOLUTIONS, "width": 32}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_number_of_a_small_detector_is_the_ports(name, options):
    report = checked(name, options={**TINY, **options})
    assert report.size == (160, 224)
    evaluation, gradients = report.errors["evaluation"], report.errors["gradient"]
    assert {"backbone3", "neck4", "dense_cls0", "boxes0", "scores1", "labels1"} <= evaluation.keys()
    assert {"total_loss", "loss_cls"} <= report.errors["loss"].keys() or "htc" in name
    trained = (value for value in detection.create(name, **{**TINY, **options}).parameters() if value.requires_grad)
    assert len(gradients) == len([*trained])
    if "retinanet" not in name:
        assert {"proposals0", "sample0_pos", "sample3_gt"} <= report.errors["training"].keys()
    if "retinanet" not in name and "faster" not in name:
        assert {"masks0", "mask_areas1", "mask_head0_logits"} <= evaluation.keys()
    if "htc" in name:
        assert {"mask_head2_logits", "semantic"} <= evaluation.keys()
        assert {"s2.loss_mask", "s1.acc"} <= report.errors["loss"].keys()
    assert ("panoptic1" in evaluation) == ("panoptic" in name)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_of_a_whole_detector_is_the_ports(family):
    checked(f"{family}_resnet50")


def test_a_checkpoint_has_its_own_weights_and_classes(tmp_path):
    options = {"blocks": (1, 1, 1, 1), "width": 8, "channels": 32}
    torch.manual_seed(0)
    port = detection.create("retinanet_resnet50", num_classes=3, **options)
    with torch.no_grad():
        port.get_parameter("bbox_head.retina_cls.bias").add_(3)  # or no class would be likely
    torch.save({"meta": {}, "state_dict": port.state_dict()}, tmp_path / "a.pth")
    report = checked("retinanet_resnet50", checkpoint=tmp_path / "a.pth", options=options)
    assert report.errors["evaluation"]["boxes0"] < 1e-9
    with pytest.raises(UserError, match=r"a\.pth does not fit the model"):
        verify("retinanet_resnet50", checkpoint=tmp_path / "a.pth", options={**options, "channels": 64})


def test_a_difference_is_found_and_named(monkeypatch):
    create = detection.create

    def changed(*arguments, **options):
        port = create(*arguments, **options)
        port.get_submodule("bbox_head.retina_reg").register_forward_hook(lambda *_: _[2] * (1 + 1e-7))
        return port

    monkeypatch.setattr(detection, "create", changed)
    [report] = verify("retinanet_resnet50", options=TINY)
    assert not report.passed
    wrong = {name for name, error in report.errors["evaluation"].items() if error > report.tolerance}
    assert {f"dense_reg{level}" for level in range(5)} <= wrong
    assert not any(name.startswith(("neck", "dense_cls")) for name in wrong)


def test_detectors_are_compared_by_a_pattern_of_their_own_and_in_float64():
    networks, upsamplers = _find("*", among=UPSAMPLERS)
    assert upsamplers
    assert not set(networks) & set(detection.list_models())
    assert _find("faster_rcnn_*", among=UPSAMPLERS) == (detection.list_models("faster_rcnn_*"), [])
    with pytest.raises(UserError, match="Detectors are compared in float64, got dtype='float32'"):
        verify("retinanet_resnet50", dtype="float32")
    with pytest.raises(UserError, match=r"named 'yolo'\. There are: .* retinanet_resnet50"):
        verify("yolo")
