"""What the PyTorch port computes."""

# torch is an extra, and the types are checked without it too.
# pyright: reportMissingImports=false

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.verify.observation import (
    INPUT,
    LAYER_INPUTS,
    LEARNING_RATE,
    LOGITS,
    MOMENTUM,
    OUTPUT,
    WEIGHT_DECAY,
    Observation,
)
from ddf_jax.verify.weights import Batch


def observe_torch(model: nn.Module, weights: Mapping[str, np.ndarray], batch: Batch, *, dtype: str) -> Observation:
    """One evaluation and one training step of `model` in `dtype`, from the official `weights`, loaded strictly."""
    model = model.to(getattr(torch, dtype))
    model.load_state_dict(_tensors(weights))
    images, labels = _images(batch, getattr(torch, dtype)), torch.from_numpy(batch.labels)

    with torch.no_grad():
        evaluation, _ = _run(model.eval(), images)
    training, logits = _run(model.train(), images.requires_grad_())
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    statistics = {name: value for name, value in model.named_buffers() if value.is_floating_point()}
    observation = {
        "evaluation": evaluation,
        "training": training,
        "loss": {"loss": _array(loss)},
        "gradient": _arrays({INPUT: images.grad, **gradients}),
        "statistics": _arrays(statistics),
    }
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    optimizer.step()
    return {**observation, "step": _arrays(dict(model.named_parameters()))}


def observe_torch_layer(
    layer: nn.Module, weights: Mapping[str, np.ndarray], inputs: Sequence[np.ndarray], cotangent: np.ndarray
) -> Observation:
    """Output and gradients of a layer in float64; inputs and cotangent are [B, H, W, C]."""
    layer = layer.double()
    layer.load_state_dict(_tensors(weights))
    tensors = [_channels_first(value, torch.float64).requires_grad_() for value in inputs]
    y = layer(*tensors)
    y.backward(_channels_first(cotangent, torch.float64))
    gradients = {name: tensor.grad for name, tensor in zip(LAYER_INPUTS, tensors, strict=False)}
    gradients |= {name: value.grad for name, value in layer.named_parameters()}
    return {"evaluation": {OUTPUT: _array(y)}, "gradient": _arrays(gradients)}


def calibrate(model: nn.Module, weights: Mapping[str, np.ndarray], batch: Batch) -> dict[str, np.ndarray]:
    """`weights` with running statistics around those of the batch, as a trained network has them.

    Made-up ones taken as they are let activations drift, layer by layer, to where a mean drowns what differs. Here a
    made-up mean becomes a shift in deviations and a made-up variance a factor.
    """
    model = copy.deepcopy(model).double().train()
    model.load_state_dict(_tensors(weights))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # running statistics become the batch's
    with torch.no_grad():
        model(_images(batch, torch.float64))
    seen = {name: _array(value) for name, value in model.state_dict().items()}
    calibrated = dict(weights)
    for name in weights:
        layer, _, kind = name.rpartition(".")
        if kind == "running_mean":
            calibrated[name] = seen[name] + weights[name] * np.sqrt(seen[f"{layer}.running_var"])
        if kind == "running_var":
            calibrated[name] = seen[name] * weights[name]
    return calibrated


def part_ties(model: nn.Module, weights: Mapping[str, np.ndarray], batch: Batch, *, within: float) -> Batch:
    """`batch`, its pixels moved a little around units that nearly tie: a ReLU's with 0, a max-pool's largest two.

    Where one implementation finds another one the larger, the gradient takes another way, and differs by far more than
    rounding. Among the 20 million units and 400,000 windows of two images of 224×224 that is to be expected in float32.

    Args:
      within: what counts as a tie, as a share of a layer's largest value. Of 40 moves the one with the fewest is taken.
    """
    model = copy.deepcopy(model).double().train()
    model.load_state_dict(_tensors(weights))
    random = np.random.RandomState(0)
    best, fewest = batch, _ties(model, _images(batch, torch.float64), within)
    for _ in range(40):
        if not _count(fewest):
            break
        images = best.images.copy()
        for ties in fewest:
            strides = [-(-size // count) for size, count in zip(images.shape[1:3], ties.shape[1:], strict=False)]
            for image, *place in np.argwhere(ties):
                middle = [s * at + s // 2 for s, at in zip(strides, place, strict=True)]
                area = images[image][tuple(slice(max(0, at - 6), at + 6) for at in middle)]
                area += 0.003 * random.standard_normal(area.shape)  # so little that statistics, and others, stay
        moved = best._replace(images=images)
        ties = _ties(model, _images(moved, torch.float64), within)
        if _count(ties) <= _count(fewest):
            best, fewest = moved, ties
    return best


def _count(ties: list[np.ndarray]) -> int:
    return sum(int(places.sum()) for places in ties)


def _ties(model: nn.Module, images: Tensor, within: float) -> list[np.ndarray]:
    """For each ReLU and max-pool, where [B, H, W] (or [B] after a global average) it has a tie in any channel."""
    found = []

    def look(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        [x] = inputs
        near = within * x.abs().max()
        if isinstance(layer, nn.ReLU):
            ties = x.abs() < near
        else:
            x = functional.pad(x, [layer.padding] * 4, value=-torch.inf)
            windows = x.unfold(2, layer.kernel_size, layer.stride).unfold(3, layer.kernel_size, layer.stride)
            first, second = windows.flatten(-2).topk(2).values.unbind(-1)
            ties = (first - second < near) & (first > 0)  # a ReLU's zeros tie, and have no gradient
        found.append(ties.any(1).numpy())

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.ReLU | nn.MaxPool2d):
                hooks.enter_context(module.register_forward_pre_hook(look))
        model(images)
    return found


def _run(model: nn.Module, images: Tensor) -> tuple[dict[str, np.ndarray], Tensor]:
    """The output of each module by its name, and the logits."""
    outputs = {}

    def record(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: outputs.update({name: _array(output)})

    with contextlib.ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_hook(record(name or LOGITS)))
        logits = model(images)
    return outputs, logits


def _tensors(weights: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}


def _images(batch: Batch, dtype: torch.dtype) -> Tensor:
    return _channels_first(batch.images, dtype)


def _channels_first(value: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(value.transpose(0, 3, 1, 2).copy()).to(dtype)


def _arrays(tensors: Mapping[str, Tensor | None]) -> dict[str, np.ndarray]:
    return {name: _array(value) for name, value in tensors.items() if value is not None}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().clone().numpy()
