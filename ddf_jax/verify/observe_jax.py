"""What the Flax model computes."""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from ddf_jax.capture import Call, intercepted
from ddf_jax.checkpoints.convert import named_arrays
from ddf_jax.checkpoints.rules import translate, translate_name
from ddf_jax.verify.observation import INPUT, LEARNING_RATE, LOGITS, MOMENTUM, WEIGHT_DECAY, Observation
from ddf_jax.verify.weights import Batch

Outputs = dict[str, Array]  # by the module's path, joined by dots


def observe_jax(model: nnx.Module, batch: Batch, *, dtype: str) -> Observation:
    """One evaluation and one training step of `model`, which computes in `dtype`.

    Results have official names and torch's layouts. Matrix products run at the highest precision. The model's blocks
    are compiled one by one, each kind of block once for all models; what is around them runs operation by operation.
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

        optimizer = optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(LEARNING_RATE, momentum=MOMENTUM))
        updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
        stepped: Any = optax.apply_updates(parameters, updates)

    names = _layer_names(named_arrays(parameters))
    return {
        "evaluation": _torch_outputs(evaluation, names),
        "training": _torch_outputs(training, names),
        "loss": {"loss": np.asarray(loss)},
        "gradient": {INPUT: _torch_layout(image_gradient), **_official(gradients)},
        "statistics": _official(statistics),
        "step": _official(stepped),
    }


def _run(model: nnx.Module, images: Array) -> tuple[Outputs, Array]:
    """The output of each submodule, and the logits."""
    with _recording(model) as outputs:
        logits = model(images)
    return {**outputs, LOGITS: logits}, logits


@contextlib.contextmanager
def _recording(root: nnx.Module) -> Iterator[Outputs]:
    """Fills a dictionary with what the submodules of `root` return, and compiles the members of lists of modules."""
    outputs: Outputs = {}

    def recorded(path: tuple[Any, ...], call: Call, module: nnx.Module, x: Array) -> Array:
        name = ".".join(map(str, path))
        if path and isinstance(path[-1], int):
            structure, state = nnx.split(module)
            y, state, inner = _call_compiled(call, structure, state, x)
            nnx.update(module, state)
            outputs.update({f"{name}.{key}": value for key, value in inner.items()})
        else:
            y = call(module, x)
        outputs[name] = y
        return y

    with intercepted(root, recorded):
        yield outputs


@functools.partial(jax.jit, static_argnums=(0, 1))
def _call_compiled(
    call: Call, structure: nnx.GraphDef[nnx.Module], state: nnx.State, x: Array
) -> tuple[Array, nnx.State, Outputs]:
    module = nnx.merge(structure, state)
    with _recording(module) as outputs:
        y = call(module, x)
    return y, nnx.state(module), outputs


def _layer_names(parameters: Iterable[str]) -> dict[str, str]:
    """Official names of modules by ours: what remains of a parameter's two names without their common ends."""
    names = {}
    for own in parameters:
        official = translate_name(own, "own")
        while "." in own and "." in official:
            own, official = own.rpartition(".")[0], official.rpartition(".")[0]
            names[own] = official
    return names


def _torch_outputs(outputs: Outputs, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    named = {LOGITS: LOGITS, **names}
    return {named[own]: _torch_layout(value) for own, value in outputs.items() if own in named}


def _torch_layout(value: Array) -> np.ndarray:
    """[B, H, W, C] to [B, C, H, W]; filters [B, H, W, G, T] to [B, G·T, H, W] and [B, T, C] to [B, C·T, 1, 1]."""
    if value.ndim == 5:
        value = value.reshape(*value.shape[:3], -1)
    if value.ndim == 3:
        value = value.swapaxes(1, 2).reshape(value.shape[0], 1, 1, -1)
    return np.asarray(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value)


def _official(state: nnx.State) -> dict[str, np.ndarray]:
    return translate(named_arrays(state), "own")
