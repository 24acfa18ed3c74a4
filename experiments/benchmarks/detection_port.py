"""The parts of the PyTorch port's Faster R-CNN, as a process of `turns`.

python -m experiments.benchmarks.detection_port FOLDER
"""

# torch is an extra, and the types are checked without it too.
# pyright: reportMissingImports=false

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddf_jax.torch_port import detection
from ddf_jax.torch_port.detection.dense_head import DenseOutputs
from ddf_jax.torch_port.detection.detections import Detections, best_detections
from ddf_jax.torch_port.detection.mask_head import paste_masks
from ddf_jax.torch_port.detection.roi_head import box_features, mask_features
from ddf_jax.torch_port.detection.suppression import suppress
from experiments.benchmarks.torch_parts import channels_first, nms_arrays, torch_part, training_part, use_all_cores
from experiments.benchmarks.turns import Part, serve

MODEL = "faster_rcnn_resnet50"


def make_parts(folder: Path) -> dict[str, Callable[[], Part]]:
    """What makes each part by name.

    Args:
        folder: of `inputs.npz` and `weights.npz`.
    """
    use_all_cores()
    inputs = dict(np.load(folder / "inputs.npz"))
    proposals = torch.from_numpy(inputs["proposals"])
    settings = dataclasses.replace(detection.Settings(), test_proposals=len(proposals))

    def make_model() -> Any:
        model = detection.create(MODEL, settings=settings)
        weights = np.load(folder / "weights.npz")
        model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.items()})
        return model.eval()

    model = functools.cache(make_model)  # training, which changes weights, has one of its own

    height, width = inputs["image"].shape[1:3]
    size = (height, width)
    image, features = channels_first(inputs["image"]), channels_first(inputs["features"])
    levels = [channels_first(inputs[f"level{number}"]) for number in range(5)]
    dense = DenseOutputs(
        *([channels_first(inputs[f"{kind}{number}"]) for number in range(5)] for kind in ("logits", "deltas"))
    )
    logits, deltas = torch.from_numpy(inputs["class_logits"]), torch.from_numpy(inputs["class_deltas"]).flatten(1)
    found, masks = torch.from_numpy(inputs["found"]), torch.from_numpy(inputs["masks"])

    def propose() -> list[Tensor]:
        return model().rpn_head.proposals(dense, [size], settings.test_candidates, settings.test_proposals)

    def detect() -> Detections:
        boxes = model().roi_head.bbox_head.decode(proposals, deltas, size)
        return best_detections(boxes, logits.softmax(1)[:, :-1], settings)

    def rest() -> Any:
        return model().roi_head.detect(levels, propose(), [size], settings)

    def pyramid() -> list[Tensor]:
        return model().neck(model().backbone.features(image))

    def nms(boxes: Tensor, scores: Tensor, groups: Tensor) -> Part:
        return torch_part(lambda: suppress(boxes, scores, groups, 0.7)[: len(proposals)], boxes, scores, groups)

    return {
        "backbone": lambda: torch_part(lambda: model().backbone.features(image), model().backbone, image),
        "pyramid": lambda: torch_part(pyramid, model().backbone, model().neck, image),
        "rpn_head": lambda: torch_part(lambda: model().rpn_head(levels), model().rpn_head, levels),
        "proposals": lambda: torch_part(propose, dense),
        **{name: functools.partial(nms, *arrays) for name, arrays in nms_arrays(inputs).items()},
        "roi_align_box": lambda: torch_part(lambda: box_features(levels, [proposals]), levels, proposals),
        "box_head": lambda: torch_part(lambda: model().roi_head.bbox_head(features), model().roi_head, features),
        "detections": lambda: torch_part(detect, proposals, logits, deltas),
        "roi_align_mask": lambda: torch_part(lambda: mask_features(levels, [found]), levels, found),
        "paste_masks": lambda: torch_part(lambda: paste_masks(masks, found, size), masks, found),
        "rest": lambda: torch_part(rest, model().roi_head, levels, dense),
        "forward": lambda: torch_part(lambda: model().predict(image, [size]), model(), image),
        "training_step": lambda: _training_step(make_model(), inputs),
    }


def _training_step(model: Any, inputs: dict[str, np.ndarray]) -> Part:
    model.train()
    images = channels_first(inputs["train_images"])
    sizes = [(images.shape[2], images.shape[3])] * len(images)
    truths = [
        detection.Truth(torch.from_numpy(boxes), torch.from_numpy(labels).long())
        for boxes, labels in zip(inputs["train_boxes"], inputs["train_labels"], strict=True)
    ]
    return training_part(model, lambda: model.loss(images, sizes, truths), images)


if __name__ == "__main__":
    serve(make_parts(Path(sys.argv[1])), f"torch {torch.__version__}")
