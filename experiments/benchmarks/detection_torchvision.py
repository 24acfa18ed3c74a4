"""The parts of torchvision's Faster R-CNN with ResNet-50-FPN, as a process of `turns`.

    PYTHONPATH=. OTHER_PYTHON -m experiments.benchmarks.detection_torchvision FOLDER

Its Python needs NumPy, torch and torchvision only. The network has the weights and the settings of the others; resizing
and normalisation are left out. Its own are the background as the class 0, rounded anchors, RoIAlign with 2×2 samples a
bin, and masks of an image as probabilities, which are compared with 1/2 here.
"""

# torchvision lies in a Python of its own.
# pyright: reportMissingImports=false

import functools
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign, batched_nms

from experiments.benchmarks.torch_parts import channels_first, nms_arrays, torch_part, training_part, use_all_cores
from experiments.benchmarks.turns import Part, serve

NAMES = (
    (r"backbone\.(?!body)", "backbone.body."),
    (r"neck\.lateral_convs\.(\d)\.conv", r"backbone.fpn.inner_blocks.\1.0"),
    (r"neck\.fpn_convs\.(\d)\.conv", r"backbone.fpn.layer_blocks.\1.0"),
    (r"rpn_head\.rpn_conv", "rpn.head.conv.0.0"),
    (r"rpn_head\.rpn_cls", "rpn.head.cls_logits"),
    (r"rpn_head\.rpn_reg", "rpn.head.bbox_pred"),
    (r"roi_head\.bbox_head\.shared_fcs\.0", "roi_heads.box_head.fc6"),
    (r"roi_head\.bbox_head\.shared_fcs\.1", "roi_heads.box_head.fc7"),
    (r"roi_head\.bbox_head\.fc_cls", "roi_heads.box_predictor.cls_score"),
    (r"roi_head\.bbox_head\.fc_reg", "roi_heads.box_predictor.bbox_pred"),
)
"""Beginnings of MMDetection's names and of torchvision's."""


def make_parts(folder: Path) -> dict[str, Callable[[], Part]]:
    """What makes each part by name.

    Args:
        folder: of `inputs.npz` and `weights.npz`.
    """
    use_all_cores()
    inputs = dict(np.load(folder / "inputs.npz"))
    proposals = torch.from_numpy(inputs["proposals"])

    def make_model() -> Any:
        return create(dict(np.load(folder / "weights.npz")), len(proposals))

    model = functools.cache(make_model)  # training, which changes weights, has one of its own
    height, width = inputs["image"].shape[1:3]
    size = (height, width)
    image, features = channels_first(inputs["image"]), channels_first(inputs["features"])
    levels = _named([channels_first(inputs[f"level{number}"]) for number in range(5)])
    dense = tuple([channels_first(inputs[f"{kind}{number}"]) for number in range(5)] for kind in ("logits", "deltas"))
    logits = torch.from_numpy(inputs["class_logits"]).roll(1, 1)
    deltas = torch.from_numpy(np.pad(inputs["class_deltas"], ((0, 0), (1, 0), (0, 0)))).flatten(1)
    found, masks = torch.from_numpy(inputs["found"]), torch.from_numpy(inputs["masks"])[:, None]
    pool = {bins: MultiScaleRoIAlign(["0", "1", "2", "3"], bins, 2) for bins in (7, 14)}

    def propose() -> list[Tensor]:
        rpn = model().rpn
        objectness, offsets = concat_box_prediction_layers(*dense)
        anchors = rpn.anchor_generator(ImageList(image, [size]), [*levels.values()])
        boxes = rpn.box_coder.decode(offsets, anchors).view(1, -1, 4)
        return rpn.filter_proposals(boxes, objectness, [size], [of_level.numel() for of_level in dense[0]])[0]

    def head(features: Tensor) -> tuple[Tensor, Tensor]:
        return model().roi_heads.box_predictor(model().roi_heads.box_head(features))

    def forward() -> Any:
        levels = model().backbone(image)
        proposals, _ = model().rpn(ImageList(image, [size]), levels)
        return model().roi_heads(levels, proposals, [size])

    def detect() -> Any:
        return model().roi_heads.postprocess_detections(logits, deltas, [proposals], [size])

    def rest() -> Any:
        return model().roi_heads(levels, propose(), [size])

    def nms(boxes: Tensor, scores: Tensor, groups: Tensor) -> Part:
        return torch_part(lambda: batched_nms(boxes, scores, groups, 0.7)[: len(proposals)], boxes, scores, groups)

    def align(bins: int, boxes: Tensor) -> Part:
        return torch_part(lambda: pool[bins](levels, [boxes], [size]), [*levels.values()], boxes)

    of_levels = [*levels.values()]
    return {
        "backbone": lambda: torch_part(lambda: model().backbone.body(image), model().backbone.body, image),
        "pyramid": lambda: torch_part(lambda: model().backbone(image), model().backbone, image),
        "rpn_head": lambda: torch_part(lambda: model().rpn.head(of_levels), model().rpn.head, of_levels),
        "proposals": lambda: torch_part(propose, dense),
        **{name: functools.partial(nms, *arrays) for name, arrays in nms_arrays(inputs).items()},
        "roi_align_box": lambda: align(7, proposals),
        "box_head": lambda: torch_part(lambda: head(features), model().roi_heads, features),
        "detections": lambda: torch_part(detect, proposals, logits, deltas),
        "roi_align_mask": lambda: align(14, found),
        "paste_masks": lambda: torch_part(lambda: paste_masks_in_image(masks, found, size) >= 0.5, masks, found),
        "rest": lambda: torch_part(rest, model().roi_heads, of_levels, dense),
        "forward": lambda: torch_part(forward, model(), image),
        "training_step": lambda: _training_step(make_model(), inputs),
    }


def create(weights: dict[str, np.ndarray], proposals: int) -> FasterRCNN:
    """The network with MMDetection's settings, frozen as torchvision freezes a pretrained one, for evaluation.

    Args:
        weights: by MMDetection's names.
        proposals: of an image.
    """
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
    counts = {"rpn_post_nms_top_n_test": proposals, "rpn_post_nms_top_n_train": 1000}
    model = FasterRCNN(backbone, num_classes=81, **counts)
    state = {}
    for name, tensor in weights.items():
        if name.endswith("num_batches_tracked"):
            continue
        if "fc_cls" in name:
            tensor = np.roll(tensor, 1, 0)
        elif "fc_reg" in name:
            tensor = np.concatenate([np.zeros_like(tensor[:4]), tensor])
        [new] = [re.sub("^" + old, new, name) for old, new in NAMES if re.match(old, name)]
        state[new] = torch.from_numpy(np.ascontiguousarray(tensor))
    model.load_state_dict(state)
    return model.eval()


def _training_step(model: Any, inputs: dict[str, np.ndarray]) -> Part:
    model.train()
    images = channels_first(inputs["train_images"])
    sizes = [(images.shape[2], images.shape[3])] * len(images)
    targets = [
        {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels).long() + 1}
        for boxes, labels in zip(inputs["train_boxes"], inputs["train_labels"], strict=True)
    ]

    def losses() -> dict[str, Tensor]:
        levels = model.backbone(images)
        proposals, of_proposals = model.rpn(ImageList(images, sizes), levels, targets)
        _, of_heads = model.roi_heads(levels, proposals, sizes, targets)
        return of_proposals | of_heads

    return training_part(model, losses, images)


def _named(levels: list[Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict(zip(("0", "1", "2", "3", "pool"), levels, strict=True))


if __name__ == "__main__":
    serve(make_parts(Path(sys.argv[1])), f"torchvision {torchvision.__version__}, torch {torch.__version__}")
