"""Layers that no registered network is built from, beside their PyTorch ports."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ddf_jax import layers
from ddf_jax.checkpoints.convert import load_tensors, named_arrays
from ddf_jax.checkpoints.rules import translate
from ddf_jax.verify.observation import LAYER_INPUTS, OUTPUT, Observation
from ddf_jax.verify.report import relative_errors
from ddf_jax.verify.weights import make_weights, rounded_to


class Pair(NamedTuple):
    """A layer of ours and its port's name in `ddf_jax.torch_port`: both are made by `(CHANNELS, **options)`."""

    ours: Callable[..., nnx.Module]
    port: str
    options: Mapping[str, Any]


CHANNELS = 16
LAYERS = {
    "ddf_up": Pair(layers.DDFUp, "DDFUp", {"heads": 2}),
    "ddf_up_guided": Pair(layers.DDFUp, "DDFUp", {"guidance_channels": 5, "guidance_kernel_size": 3}),
    "carafe": Pair(layers.CARAFE, "CARAFE", {"groups": 2}),
}


def layer_errors(
    pair: Pair, *, dtype: str, size: tuple[int, int], batch: int, implementation: str | None, seed: int
) -> dict[str, dict[str, float]]:
    """Relative errors of the output, and of the gradients of every input and parameter, from made-up values.

    The port computes in float64, we in `dtype`, from weights, inputs and a cotangent that are rounded to it.
    """
    from ddf_jax import torch_port
    from ddf_jax.verify.observe_torch import observe_torch_layer

    random = np.random.RandomState(seed)
    port = getattr(torch_port, pair.port)(CHANNELS, **pair.options)
    shapes = {name: tuple(value.shape) for name, value in port.state_dict().items()}
    weights = {name: rounded_to(value, dtype) for name, value in make_weights(shapes, margin=0.0, seed=seed).items()}
    channels = [CHANNELS, pair.options["guidance_channels"]] if "guidance_channels" in pair.options else [CHANNELS]
    inputs = [rounded_to(random.standard_normal((batch, *size, count)), dtype) for count in channels]
    scale = pair.options.get("scale", 2)
    cotangent = rounded_to(random.standard_normal((batch, scale * size[0], scale * size[1], CHANNELS)), dtype)

    options = {**pair.options, "implementation": implementation, "dtype": dtype, "param_dtype": dtype}
    ours = nnx.eval_shape(lambda: pair.ours(CHANNELS, **options, rngs=nnx.Rngs(0)))
    load_tensors(ours, weights, "what was made up")
    return relative_errors(
        _observe(ours, inputs, cotangent, dtype), observe_torch_layer(port, weights, inputs, cotangent)
    )


def _observe(layer: nnx.Module, inputs: list[np.ndarray], cotangent: np.ndarray, dtype: str) -> Observation:
    structure, state = nnx.split(layer)

    @jax.jit
    def run(state, cotangent, *inputs):
        y, pull_back = jax.vjp(lambda state, *inputs: nnx.merge(structure, state)(*inputs), state, *inputs)
        return y, *pull_back(cotangent)

    with jax.default_matmul_precision("highest"):
        y, parameters, *gradients = run(state, *(jnp.asarray(value, dtype) for value in (cotangent, *inputs)))
    named = dict(zip(LAYER_INPUTS, map(_torch_layout, gradients), strict=False))
    return {
        "evaluation": {OUTPUT: _torch_layout(y)},
        "gradient": {**named, **translate(named_arrays(parameters), "own")},
    }


def _torch_layout(value: jax.Array) -> np.ndarray:
    return np.asarray(value.transpose(0, 3, 1, 2))
