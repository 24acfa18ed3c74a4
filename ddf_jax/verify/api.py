"""Compares registered models, and layers that none of them has, with their PyTorch ports."""

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tqdm
from flax import nnx

from ddf_jax import models
from ddf_jax.checkpoints.convert import load_tensors
from ddf_jax.checkpoints.rules import COUNTER, naming_of, translate
from ddf_jax.checkpoints.tensor_files import read_tensors
from ddf_jax.verify.layers import LAYERS, layer_errors
from ddf_jax.verify.observe_jax import observe_jax
from ddf_jax.verify.report import TOLERANCES, Report, relative_errors
from ddf_jax.verify.weights import make_batch, make_weights, rounded_to

# Of `make_weights`: float64 has the digits to compare networks whose units switch.
MARGINS = {"float64": 1.0, "float32": 4.25}
TIE = 3e-6  # a share of a layer's largest value, about what float32 loses on the way to it


def verify(
    model: str = "*",
    *,
    checkpoint: Path | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    size: tuple[int, int] = (97, 65),
    batch: int = 2,
    implementation: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> list[Report]:
    """Runs the same weights and images through our model and the PyTorch port, and compares all that they compute.

    Compared are the output of every layer in evaluation and in training mode, the loss, the gradient of every parameter
    and of the input, the running statistics, and every parameter after a step of SGD. The port computes in float64
    whatever our dtype is, from weights and images rounded to it: what shows is our rounding alone. The relative error
    of a tensor is max|ours - theirs| / max|theirs|; a report passes where none exceeds its dtype's tolerance
    (`TOLERANCES`).

    Args:
      model: a registered name, that of a layer (`LAYERS`: its output and gradients) or a shell pattern; models without
        a port are left out.
      checkpoint: weights to compare with, in any form that `load_checkpoint` takes; made-up ones by default.
      dtype: of all our arithmetic. With the weights of a checkpoint use float64: in float32 a unit of a ReLU
        within rounding of 0 may switch, or another value be the largest of a max-pool's window, and change
        gradients by more than rounding.
      size: height and width of the images.
      batch: number of images.
      implementation: of `dynamic_filter`; default: the best that runs here.
      options: fields of the model's configuration to replace, or options of the layer, on both sides.
      seed: of the made-up weights and images.

    Returns:
      A report for each model.

    Raises:
      ValueError: torch is missing, no model of that name has a port, or the checkpoint does not fit.
    """
    try:
        from ddf_jax import torch_port
        from ddf_jax.verify.observe_torch import calibrate, observe_torch, part_ties
    except ImportError as error:
        raise ValueError('Comparing with PyTorch needs it: `pip install "ddf-jax[torch]"`.') from error
    ports = torch_port.list_models()
    names = [name for name in models.list_models(model) if name in ports]
    layers = {} if checkpoint is not None else LAYERS
    pairs = {name: layers[name] for name in fnmatch.filter(layers, model)}
    if not names and not pairs:
        there = ", ".join([*ports, *layers])
        raise ValueError(f"No model with a PyTorch port is named {model!r}; there are {there}.")
    if checkpoint is not None and len(names) > 1:
        raise ValueError(f"A checkpoint is of one model, but {model!r} names {len(names)}: {', '.join(names)}.")
    options = options or {}
    stored = None if checkpoint is None else _stored_weights(checkpoint)
    num_classes = 10 if stored is None or "fc.bias" not in stored else stored["fc.bias"].size
    drawn = make_batch(size, batch=batch, channels=options.get("in_channels", 3), num_classes=num_classes, seed=seed)
    reports = []
    for name in tqdm.tqdm(names, unit="model", disable=len(names) < 2):
        theirs = torch_port.create(name, num_classes=num_classes, **options)
        shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
        if stored is None:
            weights = calibrate(theirs, make_weights(shapes, margin=MARGINS[dtype], seed=seed), drawn)
        else:  # a file need not hold torch's counters
            weights = {key: np.zeros((), np.int64) for key in shapes if key.endswith(COUNTER)} | stored
        weights = {key: rounded_to(value, dtype) for key, value in weights.items()}
        images = drawn
        if dtype == "float32" and stored is None:
            images = part_ties(theirs, weights, drawn, within=TIE)
        images = images._replace(images=rounded_to(images.images, dtype))
        with jax.enable_x64(dtype == "float64"):
            ours = create_abstract(name, dtype, num_classes, options)
            load_tensors(ours, weights, str(checkpoint or "what was made up"))
            if implementation is not None:
                choose_implementation(ours, implementation)
            errors = relative_errors(
                observe_jax(ours, images, dtype=dtype), observe_torch(theirs, weights, images, dtype="float64")
            )
        reports.append(Report(name, dtype, size, TOLERANCES[dtype], errors))
        if len(names) > 1:  # some hundred programs a model; after thirty the process is out of memory mappings
            jax.clear_caches()
    for name, pair in pairs.items():
        pair = pair._replace(options={**pair.options, **options})
        with jax.enable_x64(dtype == "float64"):
            errors = layer_errors(pair, dtype=dtype, size=size, batch=batch, implementation=implementation, seed=seed)
        reports.append(Report(name, dtype, size, TOLERANCES[dtype], errors))
    return reports


def create_abstract(name: str, dtype: str, num_classes: int, options: Mapping[str, Any]) -> nnx.Module:
    """The registered model without arrays: the weights to load are all it needs."""
    dtypes = {"dtype": dtype, "param_dtype": dtype}
    return nnx.eval_shape(lambda: models.create(name, num_classes=num_classes, rngs=nnx.Rngs(0), **dtypes, **options))


def choose_implementation(model: nnx.Module, implementation: str) -> None:
    """Makes every dynamic filter in the model run that implementation."""
    for _, module in nnx.iter_modules(model):
        if hasattr(module, "implementation"):
            module.implementation = implementation  # pyright: ignore[reportAttributeAccessIssue]


def _stored_weights(path: Path) -> dict[str, np.ndarray]:
    """What a checkpoint holds, under official names, in float64."""
    tensors = read_tensors(path)
    official = tensors if naming_of(tensors) == "official" else translate(tensors, "own")
    return {
        name: value if name.endswith(COUNTER) else np.asarray(value, np.float64) for name, value in official.items()
    }
