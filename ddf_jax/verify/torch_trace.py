"""The values that a PyTorch port computes."""

import contextlib
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.checkpoints.layouts import COUNTER, is_buffer
from ddf_jax.torch_port import detection
from ddf_jax.verify.random_inputs import RandomBatch
from ddf_jax.verify.reference_inputs import ReferenceInputs
from ddf_jax.verify.trace import (
    INPUT,
    LAYER_INPUTS,
    LEARNING_RATE,
    LOGITS,
    MOMENTUM,
    OUTPUT,
    WEIGHT_DECAY,
    TrainingTrace,
)


def trace_port(model: nn.Module, weights: Mapping[str, np.ndarray], batch: RandomBatch, *, dtype: str) -> TrainingTrace:
    """Traces one evaluation and one training step of a port in `dtype`, with `weights` loaded strictly."""
    model = model.to(getattr(torch, dtype))
    model.load_state_dict(to_tensors(weights))
    images, labels = to_channels_first(batch.images, getattr(torch, dtype)), torch.from_numpy(batch.labels)

    with torch.no_grad():
        evaluation, _ = _run(model.eval(), images)
    training, logits = _run(model.train(), images.requires_grad_())
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    statistics = {name: value for name, value in model.named_buffers() if not is_buffer(name)}
    trace = {
        "evaluation": evaluation,
        "training": training,
        "loss": {"loss": _array(loss)},
        "gradient": _arrays({INPUT: images.grad, **gradients}),
        "statistics": _arrays(statistics),
    }
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    optimizer.step()
    return {**trace, "step": _arrays(dict(model.named_parameters()))}


def trace_port_layer(
    layer: nn.Module, weights: Mapping[str, np.ndarray], inputs: Sequence[np.ndarray], cotangent: np.ndarray
) -> TrainingTrace:
    """Traces the output and the gradients of a layer's port in float64; inputs and cotangent are [B, H, W, C]."""
    layer = layer.double()
    layer.load_state_dict(to_tensors(weights))
    tensors = [to_channels_first(value, torch.float64).requires_grad_() for value in inputs]
    y = layer(*tensors)
    y.backward(to_channels_first(cotangent, torch.float64))
    gradients = {name: tensor.grad for name, tensor in zip(LAYER_INPUTS, tensors, strict=False)}
    gradients |= {name: value.grad for name, value in layer.named_parameters()}
    return {"evaluation": {OUTPUT: _array(y)}, "gradient": _arrays(gradients)}


def _run(model: nn.Module, images: Tensor) -> tuple[dict[str, np.ndarray], Tensor]:
    """The output of each module that gives one tensor, by its name, and the logits."""
    outputs = {}

    def record(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            outputs[name] = _array(output)

    with contextlib.ExitStack() as hooks:
        for name, module in model.named_modules():
            hook = functools.partial(record, name or LOGITS)
            hooks.enter_context(module.register_forward_hook(lambda module, inputs, y, hook=hook: hook(y)))
        logits = model(images)
    return outputs, logits


def trace_detector(
    model: detection.Detector, weights: Mapping[str, np.ndarray], inputs: ReferenceInputs
) -> dict[str, np.ndarray]:
    """The quantities of a detector in float64, with `weights` loaded strictly; counters may be missing."""
    counters = {key: torch.zeros((), dtype=torch.int64) for key in model.state_dict() if key.endswith(COUNTER)}
    model.double().load_state_dict(counters | to_tensors(weights))
    truths = [detection.Truth(*map(torch.from_numpy, truth)) for truth in inputs.truths]
    images = to_channels_first(inputs.images, torch.float64)
    return detection.quantities(model, images, inputs.sizes, truths, torch.from_numpy(inputs.semantic))


def to_tensors(weights: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}


def to_channels_first(value: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(value.transpose(0, 3, 1, 2).copy()).to(dtype)


def _arrays(tensors: Mapping[str, Tensor | None]) -> dict[str, np.ndarray]:
    return {name: _array(value) for name, value in tensors.items() if value is not None}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().clone().numpy()
