"""Comparison of one network with its PyTorch port: with random weights or with those of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from ddf_jax import models
from ddf_jax.checkpoints.conversion import load_tensors
from ddf_jax.checkpoints.layouts import COUNTER
from ddf_jax.checkpoints.rules import naming_of, translate
from ddf_jax.checkpoints.tensor_files import read_tensors
from ddf_jax.verify.flax_trace import trace_network
from ddf_jax.verify.random_inputs import RandomBatch, random_batch, random_weights, rounded_to
from ddf_jax.verify.report import Report, relative_errors
from ddf_jax.verify.settings import TOLERANCES, Settings

NUM_CLASSES = 10
# Margin of `random_weights`: float64 has the digits to compare networks in which many units are off.
MARGINS = {"float64": 1.0, "float32": 4.25}
TIE = 3e-6  # as a share of a layer's largest value: about the rounding of float32 up to that layer

Weights = dict[str, np.ndarray]


def compare_network(name: str, settings: Settings) -> Report:
    """Compares a registered model with its port, both with the same random weights."""
    from ddf_jax.verify.torch_inputs import break_ties, calibrate

    port = _create_port(name, NUM_CLASSES, settings)
    batch = _random_batch(NUM_CLASSES, settings)
    shapes = {key: tuple(value.shape) for key, value in port.state_dict().items()}
    random = random_weights(shapes, margin=MARGINS[settings.dtype], seed=settings.seed)
    weights = _rounded(calibrate(port, random, batch), settings.dtype)
    if settings.dtype == "float32":
        batch = break_ties(port, weights, batch, within=TIE)
    return _compare(name, port, weights, batch, settings, source="the randomly initialised weights")


def compare_checkpoint(name: str, checkpoint: Path, settings: Settings) -> Report:
    """Compares a registered model with its port, both with the weights of a file."""
    weights = read_weights(checkpoint)
    num_classes = _num_classes(weights)
    port = _create_port(name, num_classes, settings)
    counters = {key: np.zeros((), np.int64) for key in port.state_dict() if key.endswith(COUNTER)}  # optional in files
    weights = _rounded(counters | weights, settings.dtype)
    return _compare(name, port, weights, _random_batch(num_classes, settings), settings, source=str(checkpoint))


def create_abstract(name: str, dtype: str, num_classes: int, options: Mapping[str, Any]) -> nnx.Module:
    """The registered model without arrays: a model whose weights are loaded needs no others."""
    dtypes = {"dtype": dtype, "param_dtype": dtype}
    return nnx.eval_shape(lambda: models.create(name, num_classes=num_classes, rngs=nnx.Rngs(0), **dtypes, **options))


def _compare(name: str, port: Any, weights: Weights, batch: RandomBatch, settings: Settings, *, source: str) -> Report:
    from ddf_jax.verify.torch_trace import trace_port

    dtype = settings.dtype
    batch = batch._replace(images=rounded_to(batch.images, dtype))
    with jax.enable_x64(dtype == "float64"):
        model = create_abstract(name, dtype, _num_classes(weights), settings.options)
        load_tensors(model, weights, source)
        if settings.implementation is not None:
            choose_implementation(model, settings.implementation)
        ours = trace_network(model, batch, dtype=dtype)
        errors = relative_errors(ours, trace_port(port, weights, batch, dtype="float64"))
    return Report(name, dtype, settings.size, TOLERANCES[dtype], errors)


def _create_port(name: str, num_classes: int, settings: Settings) -> Any:
    from ddf_jax import torch_port

    return torch_port.create(name, num_classes=num_classes, **settings.options)


def _num_classes(weights: Weights) -> int:
    head = weights.get("fc.bias", weights.get("head.bias"))
    return NUM_CLASSES if head is None else head.size


def _random_batch(num_classes: int, settings: Settings) -> RandomBatch:
    channels = settings.options.get("in_channels", 3)
    return random_batch(
        settings.size, batch=settings.batch, channels=channels, num_classes=num_classes, seed=settings.seed
    )


def _rounded(weights: Weights, dtype: str) -> Weights:
    return {name: rounded_to(value, dtype) for name, value in weights.items()}


def choose_implementation(model: nnx.Module, implementation: str) -> None:
    """Makes every dynamic filter in the model run that implementation."""
    for _, module in nnx.iter_modules(model):
        if hasattr(module, "implementation"):
            module.implementation = implementation  # pyright: ignore[reportAttributeAccessIssue]


def read_weights(path: Path) -> Weights:
    """The tensors of a checkpoint by official name, in float64."""
    tensors = read_tensors(path)
    official = tensors if naming_of(tensors) == "official" else translate(tensors, "own")
    return {
        name: value if name.endswith(COUNTER) else np.asarray(value, np.float64) for name, value in official.items()
    }
