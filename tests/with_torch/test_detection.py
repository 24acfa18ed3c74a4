"""The port's detectors: names, frozen layers, gradients, and what they find."""

import dataclasses
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from ddf_jax.errors import UserError
from ddf_jax.torch_port import detection
from ddf_jax.verify.reference_inputs import reference_inputs

# CRC-32 of the lines "name shape" of MMDetection 3.3.0's state dict, its entries and its parameters.
MMDETECTION = {
    "retinanet": (3553811182, 354, 37_968_692),
    "faster_rcnn": (3643920793, 348, 41_753_056),
    "mask_rcnn": (15483552, 360, 44_396_336),
    "htc": (329870743, 426, 80_258_293),
    "panoptic_fpn": (787551569, 383, 46_027_110),
}
TINY: dict[str, Any] = {"blocks": (1, 1, 1, 1), "width": 8, "channels": 32, "num_classes": 3, "num_stuff": 2}
SETTINGS = detection.Settings(
    train_candidates=60,
    test_candidates=30,
    train_proposals=40,
    test_proposals=20,
    box_samples=16,
    least_score=0.0,
    detections=6,
    order=detection.golden_order,
)
VARIANTS = [
    *(pytest.param(f"{family}_resnet50", {}, id=family) for family in MMDETECTION),
    pytest.param("faster_rcnn_rednet50", {"neck": "involution", "head": "involution", "width": 32}, id="rednet"),
    pytest.param("mask_rcnn_resnet50", {"neck": "involution", "head": "involution"}, id="involution"),
]


def batch(objects: bool = True) -> tuple[torch.Tensor, Any, list[detection.Truth], torch.Tensor]:
    inputs = reference_inputs(1, semantic_classes=5)
    truths = [
        detection.Truth(torch.from_numpy(boxes), torch.from_numpy(labels % 3), torch.from_numpy(masks))
        for boxes, labels, masks in inputs.truths
    ]
    if not objects:
        truths[1] = detection.Truth(*(field[:0] for field in truths[1] if field is not None))
    images = torch.from_numpy(inputs.images.transpose(0, 3, 1, 2).copy())
    return images, inputs.sizes, truths, torch.from_numpy(inputs.semantic)


def tiny(name: str, settings: detection.Settings = SETTINGS, **options: Any) -> detection.Detector:
    torch.manual_seed(0)
    return detection.create(name, settings=settings, **{**TINY, "num_semantic": 5, **options}).double()


def masks_of(found: detection.Detections) -> torch.Tensor:
    assert found.masks is not None
    return found.masks


@pytest.mark.parametrize("family", MMDETECTION)
def test_names_and_shapes_are_those_of_mmdetection(family):
    with torch.device("meta"):
        model = detection.create(f"{family}_resnet50")
    lines = "\n".join(f"{name} {list(value.shape)}" for name, value in sorted(model.state_dict().items()))
    parameters = sum(value.numel() for value in model.parameters())
    assert (zlib.crc32(lines.encode()), len(model.state_dict()), parameters) == MMDETECTION[family]


# Millions of parameters with a gradient, of the papers' tables.
@pytest.mark.parametrize(
    ("name", "options", "millions"),
    [
        ("retinanet_resnet101", {}, 56.735),
        ("retinanet_rednet50", {"neck": "involution"}, 26.246),
        ("faster_rcnn_rednet50", {}, 31.598),
        ("mask_rcnn_resnet101", {}, 63.163),
        ("htc_resnet101", {}, 99.025),
        ("panoptic_fpn_resnet50", {}, 45.80),
        ("panoptic_fpn_rednet50", {"neck": "involution"}, 33.78),
    ],
)
def test_trainable_parameters_are_those_published(name, options, millions):
    with torch.device("meta"):
        model = detection.create(name, **options)
    counted = sum(value.numel() for value in model.parameters() if value.requires_grad) / 1e6
    assert counted == pytest.approx(millions, abs=0.005 if millions in (45.80, 33.78) else 0.0005)


def test_an_unknown_name_and_a_head_that_is_not_there_are_refused():
    with pytest.raises(UserError, match=r"'yolo_resnet50'\. Did you mean 'htc_resnet50' or "):
        detection.create("yolo_resnet50")
    with pytest.raises(UserError, match=r'`neck` must be "convolution" or "involution" in the port, got \'dcdc\''):
        detection.create("mask_rcnn_resnet50", neck="dcdc")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r'`head` must be "convolution" for htc_resnet50'):
        detection.create("htc_resnet50", head="involution")


def test_missing_masks_and_semantic_labels_are_asked_for():
    images, sizes, truths, semantic = batch()
    with pytest.raises(UserError, match="needs the class of each pixel"):
        tiny("panoptic_fpn_resnet50").loss(images, sizes, truths)
    with pytest.raises(UserError, match="needs those of the objects"):
        tiny("htc_resnet50").loss(images, sizes, [truth._replace(masks=None) for truth in truths], semantic)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_every_parameter_but_those_of_the_stem_and_the_first_stage_gets_a_gradient(name, options):
    model = tiny(name, **options)
    before = {name: value.clone() for name, value in model.state_dict().items() if "backbone" in name}
    torch.stack([*model.loss(*batch()).values()]).sum().backward()
    without = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    frozen = {name for name, _ in model.named_parameters() if name.startswith(("backbone.conv1", "backbone.bn1"))}
    frozen |= {name for name, _ in model.named_parameters() if name.startswith(("backbone.stem", "backbone.layer1"))}
    assert without == frozen
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "statistics of the backbone"


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_detections_are_inside_their_images_by_descending_score(name, options):
    images, sizes, _, _ = batch()
    found = tiny(name, **options).eval().predict(images, sizes)
    assert len(found) == 2
    for of_image, (height, width) in zip(found, sizes, strict=True):
        assert len(of_image.boxes) == len(of_image.scores) == len(of_image.labels) == 6
        assert (of_image.boxes >= 0).all()
        assert (of_image.boxes <= torch.tensor([width, height, width, height])).all()
        assert of_image.scores.tolist() == sorted(of_image.scores.tolist(), reverse=True)
        masks = None if of_image.masks is None else of_image.masks.shape
        assert masks == (None if name.startswith(("retina", "faster")) else (6, height, width))
        assert (of_image.panoptic is not None) == name.startswith("panoptic")


@pytest.mark.parametrize("family", MMDETECTION)
def test_images_without_objects_and_without_detections_are_possible(family):
    model = tiny(f"{family}_resnet50", dataclasses.replace(SETTINGS, least_score=1.0))
    images, sizes, truths, semantic = batch(objects=False)
    for some in (truths, [truths[1], truths[1]]):
        assert all(loss.isfinite() for loss in model.loss(images, sizes, some, semantic).values())
    found = model.eval().predict(images, sizes)
    assert [len(of_image.boxes) for of_image in found] == [0, 0]
    if family not in ("retinanet", "faster_rcnn"):
        assert [masks_of(of_image).shape for of_image in found] == [(0, *size) for size in sizes]


def test_masks_of_a_cascade_are_of_all_stages_or_of_the_last():
    images, sizes, _, _ = batch()
    model = tiny("htc_resnet50").eval()
    outputs = model.evaluation_outputs(images, sizes)
    model.settings = dataclasses.replace(SETTINGS, mask_stages="last")
    last = model.predict(images, sizes)
    with torch.no_grad():
        for head in model.get_submodule("roi_head.mask_head")[:2]:  # pyright: ignore[reportIndexIssue]
            head.conv_logits.bias.add_(9.0)
    for before, after in zip(last, model.predict(images, sizes), strict=True):
        assert torch.equal(masks_of(before), masks_of(after))
    model.settings = SETTINGS
    for before, after in zip(outputs.detections, model.predict(images, sizes), strict=True):
        assert torch.equal(before.boxes, after.boxes)
        assert masks_of(after).sum() > masks_of(before).sum()


@pytest.mark.parametrize("family", MMDETECTION)
def test_quantities_are_the_losses_the_detections_and_what_they_come_from(family):
    model = tiny(f"{family}_resnet50")
    images, sizes, truths, semantic = batch()
    values = detection.quantities(model, images, sizes, truths, semantic)
    losses = {name: loss.item() for name, loss in model.loss(images, sizes, truths, semantic).items()}
    assert {name: values[f"losses/{name}"] for name in losses} == pytest.approx(losses)
    assert values["losses/total_loss"] == pytest.approx(sum(losses.values()))
    for image, found in enumerate(model.eval().predict(images, sizes)):
        np.testing.assert_array_equal(values[f"eval/boxes{image}"], found.boxes)
        if found.masks is not None:
            np.testing.assert_array_equal(values[f"eval/masks{image}"].sum((1, 2)), values[f"eval/mask_areas{image}"])
    norms = {name for name in values if name.startswith("grad_norm/")}
    assert norms == {f"grad_norm/{name}" for name, value in model.named_parameters() if value.requires_grad}
    samples = {"retinanet": 0, "htc": 14}.get(family, 4)  # of two images: anchors, boxes; of three stages also masks
    assert len([name for name in values if name.endswith("_pos")]) == samples


def test_a_detector_computes_in_the_dtype_of_its_weights():
    images, sizes, truths, semantic = batch()
    model = tiny("htc_resnet50").float()
    truths = [truth._replace(boxes=truth.boxes.float()) for truth in truths]
    assert {loss.dtype for loss in model.loss(images.float(), sizes, truths, semantic).values()} == {torch.float32}
    assert {found.boxes.dtype for found in model.predict(images.float(), sizes)} == {torch.float32}
