"""The values that a Flax model or layer computes."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from ddf_jax.capture import hook_calls, submodules
from ddf_jax.checkpoints.conversion import named_arrays
from ddf_jax.checkpoints.rules import translate, translate_name
from ddf_jax.layers.filter_norm import used_filters
from ddf_jax.verify.random_inputs import RandomBatch
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

Outputs = dict[str, Array]  # by the module's path, joined by dots


def trace_network(model: nnx.Module, batch: RandomBatch, *, dtype: str) -> TrainingTrace:
    """Traces one evaluation and one training step of `model`, which computes in `dtype`.

    Matrix products run at the highest precision. Each kind of block is compiled once for all models; the rest of a
    model runs operation by operation.
    """
    images, labels = jnp.asarray(batch.images, dtype), jnp.asarray(batch.labels)
    with jax.default_matmul_precision("highest"):
        model.eval()
        evaluation, _ = _run(model, images)

        model.train()
        structure, parameters, rest = nnx.split(model, nnx.Param, ...)

        def loss_of(parameters: nnx.State, images: Array) -> tuple[Array, Any]:
            model = nnx.merge(structure, parameters, rest, copy=True)
            outputs, logits = _run(model, images)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (outputs, nnx.state(model, nnx.BatchStat))

        differentiate = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (loss, (training, statistics)), (gradients, image_gradient) = differentiate(parameters, images)

        stepped = _step(parameters, gradients)

    layers = _TorchLayers(named_arrays(parameters))
    return {
        "evaluation": layers.outputs(evaluation),
        "training": layers.outputs(training),
        "loss": {"loss": np.asarray(loss)},
        "gradient": {INPUT: _torch_layout(image_gradient), **_official(gradients)},
        "statistics": _official(nnx.merge_state(parameters, statistics)),  # whose layouts may depend on parameters
        "step": _official(stepped),
    }


@jax.jit
def _step(parameters: nnx.State, gradients: nnx.State) -> Any:
    """The parameters after the first step of the recipe."""
    optimizer = optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(LEARNING_RATE, momentum=MOMENTUM))
    updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    return optax.apply_updates(parameters, updates)


def trace_layer(layer: nnx.Module, inputs: Sequence[np.ndarray], cotangent: np.ndarray, *, dtype: str) -> TrainingTrace:
    """Traces the output of a layer and the gradients of its inputs and parameters.

    Args:
        layer: the layer, which computes in `dtype`.
        inputs: its inputs [B, H, W, C].
        cotangent: the cotangent of its output.
        dtype: dtype of the arithmetic.
    """
    structure, state = nnx.split(layer)

    @jax.jit
    def run(state: nnx.State, cotangent: Array, *inputs: Array) -> tuple[Any, ...]:
        y, pull_back = jax.vjp(lambda state, *inputs: nnx.merge(structure, state)(*inputs), state, *inputs)
        return y, *pull_back(cotangent)

    with jax.default_matmul_precision("highest"):
        y, parameters, *gradients = run(state, *(jnp.asarray(value, dtype) for value in (cotangent, *inputs)))
    named = dict(zip(LAYER_INPUTS, map(_torch_layout, gradients), strict=False))
    return {"evaluation": {OUTPUT: _torch_layout(y)}, "gradient": {**named, **_official(parameters)}}


def _run(model: nnx.Module, images: Array) -> tuple[Outputs, Array]:
    """The output of each submodule, and the logits."""
    with _recording(model) as outputs:
        logits = model(images)
    return {**outputs, LOGITS: logits}, logits


@contextlib.contextmanager
def _recording(root: nnx.Module) -> Iterator[Outputs]:
    """Captures the outputs of all submodules, like `capture`, and compiles the members of lists of modules."""
    outputs: Outputs = {}
    modules = submodules(root)

    def record(name: str, call: Callable[..., Array], *inputs: Array) -> Array:
        if name.rpartition(".")[2].isdecimal():
            structure, state = nnx.split(modules[name])
            y, state, inner = _call_compiled(structure, state, *inputs)
            nnx.update(modules[name], state)
            outputs.update({f"{name}.{key}": value for key, value in inner.items()})
        else:
            y = call(*inputs)
        outputs[name] = used_filters(modules[name], y)
        return y

    with hook_calls(root, record):
        yield outputs


@functools.partial(jax.jit, static_argnums=0)
def _call_compiled(
    structure: nnx.GraphDef[nnx.Module], state: nnx.State, *inputs: Array
) -> tuple[Array, nnx.State, Outputs]:
    module: Any = nnx.merge(structure, state)
    with _recording(module) as outputs:
        y = module(*inputs)
    return y, nnx.state(module), outputs


class _TorchLayers:
    """Official names of modules, and where it is not ours, the order of channels in their outputs there.

    Args:
        parameters: of the network, by our names.
    """

    def __init__(self, parameters: Mapping[str, np.ndarray]):
        self.names = {LOGITS: LOGITS}
        self.orders: dict[str, np.ndarray] = {}
        # One parameter for each channel of the output.
        vectors = {name: np.arange(len(array)) for name, array in parameters.items() if array.ndim == 1}
        numbered = translate({**parameters, **vectors}, "own")
        for own in parameters:
            official = translate_name(own, "own", parameters)
            if own in vectors and not np.array_equal(numbered[official], vectors[own]):
                self.orders[own.rpartition(".")[0]] = numbered[official]
            while "." in own and "." in official:  # both names without their last parts
                own, official = own.rpartition(".")[0], official.rpartition(".")[0]
                self.names[own] = official

    def outputs(self, outputs: Outputs) -> dict[str, np.ndarray]:
        """Those of modules with official names, as torch has them."""
        ordered = {
            own: y[..., self.orders[own]] if own in self.orders else y
            for own, y in outputs.items()
            if own in self.names and isinstance(y, Array)
        }
        return {self.names[own]: _torch_layout(y) for own, y in ordered.items()}


def _torch_layout(value: Array) -> np.ndarray:
    """[B, H, W, C] to [B, C, H, W]; filters [B, H, W, G, T] to [B, G·T, H, W] and [B, T, C] to [B, C·T, 1, 1]."""
    if value.ndim == 5:
        value = value.reshape(*value.shape[:3], -1)
    if value.ndim == 3:
        value = value.swapaxes(1, 2).reshape(value.shape[0], 1, 1, -1)
    return np.asarray(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value)


def _official(state: nnx.State) -> dict[str, np.ndarray]:
    return translate(named_arrays(state), "own")
