"""Random weights and images made fit for a comparison, by running the PyTorch port."""

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.verify.random_inputs import RandomBatch
from ddf_jax.verify.torch_trace import to_channels_first, to_tensors


def calibrate(model: nn.Module, weights: Mapping[str, np.ndarray], batch: RandomBatch) -> dict[str, np.ndarray]:
    """`weights` with running statistics near those of the batch in evaluation mode, as in a trained network.

    With random running statistics the activations drift from layer to layer, until their mean hides their differences,
    or, where a layer multiplies two of them, they overflow. Here a random mean becomes a shift in standard deviations,
    and a random variance a factor. Of vectors the deviation is 8 times that from 0: averages of random images hardly
    differ, and divided by that difference, layer after layer, rounding would grow to a difference of its own.
    """
    model = copy.deepcopy(model).double().eval()
    model.load_state_dict(to_tensors(weights))

    def move(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        [x] = inputs
        others = [dim for dim in range(x.ndim) if dim != 1]
        vectors = x[0, 0].numel() == 1
        mean, var = x.mean(others), 64 * x.square().mean(others) if vectors else x.var(others)
        norm.running_mean.copy_(mean + norm.running_mean * var.sqrt())
        norm.running_var.mul_(var)

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                hooks.enter_context(module.register_forward_pre_hook(move))
        model(to_channels_first(batch.images, torch.float64))
    state = model.state_dict()
    return {name: state[name].numpy() if "running_" in name else value for name, value in weights.items()}


def break_ties(
    model: nn.Module, weights: Mapping[str, np.ndarray], batch: RandomBatch, *, within: float
) -> RandomBatch:
    """`batch` with slightly different pixels around ties: a ReLU's input near 0, a max-pool's two largest values.

    If rounding decides a tie differently in two implementations, the gradient flows through another unit and differs by
    far more than rounding. In float32 that is likely among the 20 million units and 400,000 windows of two images of
    224×224.

    Args:
        model: the port.
        weights: its weights.
        batch: the images and labels.
        within: the distance that counts as a tie, as a share of a layer's largest value. Of 40 random changes the one
            with the fewest ties is returned.
    """
    model = copy.deepcopy(model).double().train()
    model.load_state_dict(to_tensors(weights))
    random = np.random.RandomState(0)
    best, fewest = batch, _ties(model, to_channels_first(batch.images, torch.float64), within)
    for _ in range(40):
        if not _count(fewest):
            break
        images = best.images.copy()
        for ties in fewest:
            strides = [-(-size // count) for size, count in zip(images.shape[1:3], ties.shape[1:], strict=False)]
            for image, *place in np.argwhere(ties):
                middle = [s * at + s // 2 for s, at in zip(strides, place, strict=True)]
                area = images[image][tuple(slice(max(0, at - 6), at + 6) for at in middle)]
                area += 0.003 * random.standard_normal(area.shape)  # small enough to keep statistics and other ties
        moved = best._replace(images=images)
        ties = _ties(model, to_channels_first(moved.images, torch.float64), within)
        if _count(ties) <= _count(fewest):
            best, fewest = moved, ties
    return best


def _count(ties: list[np.ndarray]) -> int:
    return sum(int(places.sum()) for places in ties)


def _ties(model: nn.Module, images: Tensor, within: float) -> list[np.ndarray]:
    """For each ReLU and max-pool, whether any channel has a tie: [B, H, W], or [B] after a global average."""
    found = []

    def find(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        [x] = inputs
        near = within * x.abs().max()
        if isinstance(layer, nn.ReLU):
            ties = x.abs() < near
        else:
            x = functional.pad(x, [layer.padding] * 4, value=-torch.inf)
            windows = x.unfold(2, layer.kernel_size, layer.stride).unfold(3, layer.kernel_size, layer.stride)
            first, second = windows.flatten(-2).topk(2).values.unbind(-1)
            ties = (first - second < near) & (first > 0)  # zeros of a ReLU tie, but have no gradient
        found.append(ties.any(1).numpy())

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.ReLU | nn.MaxPool2d):
                hooks.enter_context(module.register_forward_pre_hook(find))
        model(images)
    return found
