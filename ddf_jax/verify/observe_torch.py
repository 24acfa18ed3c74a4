"""What the PyTorch port computes."""

# torch is an extra, and the types are checked without it too.
# pyright: reportMissingImports=false

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.verify.observation import INPUT, LEARNING_RATE, LOGITS, MOMENTUM, WEIGHT_DECAY, Observation
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


def _run(model: nn.Module, images: Tensor) -> tuple[dict[str, np.ndarray], Tensor]:
    """The output of each module by its name, and the logits."""
    outputs = {}

    def record(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: outputs.update({name: _array(output)})

    handles = [module.register_forward_hook(record(name or LOGITS)) for name, module in model.named_modules()]
    try:
        logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return outputs, logits


def _tensors(weights: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}


def _images(batch: Batch, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(batch.images.transpose(0, 3, 1, 2).copy()).to(dtype)


def _arrays(tensors: Mapping[str, Tensor | None]) -> dict[str, np.ndarray]:
    return {name: _array(value) for name, value in tensors.items() if value is not None}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().clone().numpy()
