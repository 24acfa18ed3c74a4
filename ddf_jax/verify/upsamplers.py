"""Comparison of one upsampler with its PyTorch port. No registered network contains these layers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from ddf_jax import layers
from ddf_jax.checkpoints.conversion import load_tensors
from ddf_jax.verify.flax_trace import trace_layer
from ddf_jax.verify.random_inputs import random_weights, rounded_to
from ddf_jax.verify.report import Report, relative_errors
from ddf_jax.verify.settings import TOLERANCES, Settings


class PortedUpsampler(NamedTuple):
    """An upsampler on both sides, made by `(CHANNELS, **options)`.

    Attributes:
        layer: the Flax layer.
        port: name of the port in `ddf_jax.torch_port`.
        options: options of both.
    """

    layer: Callable[..., nnx.Module]
    port: str
    options: Mapping[str, Any]


CHANNELS = 16
UPSAMPLERS = {
    "ddf_up": PortedUpsampler(layers.DDFUp, "DDFUp", {"heads": 2}),
    "ddf_up_guided": PortedUpsampler(layers.DDFUp, "DDFUp", {"guidance_channels": 5, "guidance_kernel_size": 3}),
    "carafe": PortedUpsampler(layers.CARAFE, "CARAFE", {"groups": 2}),
}


def compare_upsampler(name: str, settings: Settings) -> Report:
    """Compares the output of an upsampler and the gradients of every input and parameter, with random weights."""
    with jax.enable_x64(settings.dtype == "float64"):
        errors = _errors(UPSAMPLERS[name], settings)
    return Report(name, settings.dtype, settings.size, TOLERANCES[settings.dtype], errors)


def _errors(upsampler: PortedUpsampler, settings: Settings) -> dict[str, dict[str, float]]:
    from ddf_jax import torch_port
    from ddf_jax.verify.torch_trace import trace_port_layer

    dtype, options = settings.dtype, {**upsampler.options, **settings.options}
    port = getattr(torch_port, upsampler.port)(CHANNELS, **options)
    shapes = {name: tuple(value.shape) for name, value in port.state_dict().items()}
    weights = random_weights(shapes, margin=0.0, seed=settings.seed)
    weights = {name: rounded_to(value, dtype) for name, value in weights.items()}

    random = np.random.RandomState(settings.seed)
    batch, (height, width), scale = settings.batch, settings.size, options.get("scale", 2)
    channels = [CHANNELS, options["guidance_channels"]] if "guidance_channels" in options else [CHANNELS]
    inputs = [rounded_to(random.standard_normal((batch, height, width, count)), dtype) for count in channels]
    cotangent = rounded_to(random.standard_normal((batch, scale * height, scale * width, CHANNELS)), dtype)

    own = {**options, "implementation": settings.implementation, "dtype": dtype, "param_dtype": dtype}
    layer = nnx.eval_shape(lambda: upsampler.layer(CHANNELS, **own, rngs=nnx.Rngs(0)))
    load_tensors(layer, weights, "the randomly initialised weights")
    ours = trace_layer(layer, inputs, cotangent, dtype=dtype)
    return relative_errors(ours, trace_port_layer(port, weights, inputs, cotangent))
