"""What the PyTorch port computes."""

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
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    images = torch.from_numpy(batch.images.transpose(0, 3, 1, 2).copy()).to(getattr(torch, dtype))
    labels = torch.from_numpy(batch.labels)

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
    """`weights` with running statistics around those of the batch, as a trained network has.

    Made-up ones taken as they are would let activations drift, layer by layer, to where only their differences matter.
    A made-up mean becomes a shift in deviations, a made-up variance a factor.
    """
    model = model.double().train()
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for module in norms.values():
        module.momentum = 1.0  # takes the batch's statistics over
    with torch.no_grad():
        model(torch.from_numpy(batch.images.transpose(0, 3, 1, 2).copy()))
    calibrated = dict(weights)
    for name, module in norms.items():
        mean, variance = _array(module.running_mean), _array(module.running_var)
        calibrated[f"{name}.running_mean"] = mean + weights[f"{name}.running_mean"] * np.sqrt(variance)
        calibrated[f"{name}.running_var"] = variance * weights[f"{name}.running_var"]
        module.momentum = 0.1
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


def _arrays(tensors: Mapping[str, Tensor | None]) -> dict[str, np.ndarray]:
    return {name: _array(value) for name, value in tensors.items() if value is not None}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().clone().numpy()
