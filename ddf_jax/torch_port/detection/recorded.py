"""Every number of a detector that references record."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ddf_jax.torch_port.detection.detector import Detector
from ddf_jax.torch_port.detection.settings import Sizes, Truth


def quantities(
    model: Detector, images: Tensor, sizes: Sizes, truths: Sequence[Truth], semantic: Tensor | None = None
) -> dict[str, np.ndarray]:
    """The outputs of a detector's parts, its losses and the norms of its gradients, in PyTorch's layout.

    Args:
        model: its settings' order must be fixed for the samples to be the same again.
        images: [B, 3, H, W].
        sizes: (height, width) of each image without padding.
        truths: objects of each image.
        semantic: class of each pixel [B, H, W].

    Returns:
        by name: `eval/…`, `train/…`, `losses/…` and `grad_norm/…`.
    """
    values = dict(_evaluation(model, images, sizes)) | dict(_training(model, images, sizes, truths, semantic))
    return {name: value.detach().cpu().numpy() for name, value in values.items()}


@torch.no_grad()
def _evaluation(model: Detector, images: Tensor, sizes: Sizes) -> Iterator[tuple[str, Tensor]]:
    outputs = model.eval().evaluation_outputs(images, sizes)
    lists = {
        "backbone": outputs.stages,
        "neck": outputs.levels,
        "dense_cls": outputs.dense.classes,
        "dense_reg": outputs.dense.boxes,
        "proposals": outputs.proposals,
        "boxes": [found.boxes for found in outputs.detections],
        "scores": [found.scores for found in outputs.detections],
        "labels": [found.labels for found in outputs.detections],
    }
    for name, tensors in lists.items():
        yield from ((f"eval/{name}{number}", tensor) for number, tensor in enumerate(tensors))
    yield "eval/neck_last_but_one", outputs.levels[-2][:, :32]
    for stage, (logits, offsets) in enumerate(outputs.boxes):
        yield f"eval/bbox_head{stage}_cls", logits
        yield f"eval/bbox_head{stage}_reg", offsets
    yield from ((f"eval/mask_head{stage}_logits", logits) for stage, logits in enumerate(outputs.masks))
    if outputs.semantic is not None:
        yield "eval/semantic", outputs.semantic
    for image, found in enumerate(outputs.detections):
        if found.masks is not None:
            yield f"eval/masks{image}", found.masks
            yield f"eval/mask_areas{image}", found.masks.sum((1, 2))
        if found.panoptic is not None:
            yield f"eval/panoptic{image}", found.panoptic[None]


def _training(
    model: Detector, images: Tensor, sizes: Sizes, truths: Sequence[Truth], semantic: Tensor | None
) -> Iterator[tuple[str, Tensor]]:
    model.train().zero_grad()
    outputs = model.training_outputs(images, sizes, truths, semantic)
    total = torch.stack(list(outputs.losses.values())).sum()
    total.backward()
    yield from ((f"train/proposals{image}", boxes) for image, boxes in enumerate(outputs.proposals))
    for number, (positive, negative, truth) in enumerate(outputs.samples):
        yield f"train/sample{number}_pos", positive
        yield f"train/sample{number}_neg", negative
        yield f"train/sample{number}_gt", truth
    for name, loss in (outputs.losses | outputs.accuracies).items():
        yield f"losses/{name}", loss
    yield from ((f"losses/{name}/per_level", losses) for name, losses in outputs.per_level.items())
    yield "losses/total_loss", total
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            yield f"grad_norm/{name}", parameter.grad.norm()
