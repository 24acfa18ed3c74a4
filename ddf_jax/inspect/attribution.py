"""Activations of a network, their gradients, and class activation maps from both."""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.capture import capture, replace
from ddf_jax.errors import UserError

LayerShapes = dict[str, tuple[int, ...]]
"""Shapes of layers' outputs, by the layer's path joined by dots."""


class Activations(NamedTuple):
    """Activations of a network for B images; layers by name."""

    logits: Array  # [B, N]
    outputs: dict[str, Array]  # of any shape, mostly [B, H, W, C]
    gradients: dict[str, Array]  # of each image's largest logit with respect to the output


@jax.jit
def grad_cam(features: Array, gradients: Array) -> Array:
    r"""Class activation maps from gradients: [B, H, W, C] twice to [B, H, W], the largest value of each map 1.

    .. math:: \text{relu}\Big(\sum_c \alpha_c A_{p,c}\Big),
        \qquad \alpha_c = \frac{1}{HW} \sum_p \frac{\partial y}{\partial A_{p,c}}

    A map without a positive value is all 0. Computed in float32.

    Args:
        features: A, the output of a layer.
        gradients: those of the class's logit y with respect to A.

    Reference: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization",
    ICCV 2017, Eq. 1 and 2.
    """
    weights = gradients.astype(jnp.float32).mean((1, 2))
    maps = jax.nn.relu(jnp.einsum("bhwc,bc->bhw", features.astype(jnp.float32), weights))
    largest = maps.max((1, 2), keepdims=True)
    return maps / jnp.where(largest > 0, largest, 1)


def compute_activations(
    model: nnx.Module, images: Array, layers: Sequence[str], *, gradients: Sequence[str] = ()
) -> Activations:
    """Runs a network and captures outputs of layers and their gradients.

    Args:
        model: the network, in evaluation mode.
        images: the images [B, H, W, C].
        layers: the layers whose outputs are captured, named as in `layer_shapes`.
        gradients: the layers whose gradients are computed.
    """
    structure, variables = nnx.split(model)
    shapes = layer_shapes(model, images)

    @jax.jit
    def run(variables: nnx.State, images: Array) -> Activations:
        def best_logits(shifts: Mapping[str, Array]) -> tuple[Array, tuple[Array, dict[str, Array]]]:
            logits, outputs = _forward(nnx.merge(structure, variables), images, layers, shifts)
            logits = logits.astype(jnp.float32)
            return logits.max(-1).sum(), (logits, outputs)

        # The gradient with respect to a shift of 0 that is added to an output is that of the output.
        shifts = {name: jnp.zeros(shapes[name], jnp.float32) for name in gradients}
        slopes, (logits, outputs) = jax.grad(best_logits, has_aux=True)(shifts)
        return Activations(logits, outputs, slopes)

    return run(variables, images)


def layer_shapes(model: nnx.Module, images: Any) -> LayerShapes:
    """The shape of every submodule's output, without computing it.

    Args:
        model: the network.
        images: an array or `jax.ShapeDtypeStruct` [B, H, W, C].
    """
    structure, variables = nnx.split(model)
    outputs = jax.eval_shape(lambda v, x: _forward(nnx.merge(structure, v), x)[1], variables, images)
    return {name: output.shape for name, output in outputs.items()}


def find_layer(shapes: LayerShapes, name: str) -> str:
    """Returns `name` if there is such a layer.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    if name not in shapes:
        nearest = difflib.get_close_matches(name, shapes, n=3, cutoff=0.0)
        raise UserError(f"`--layer` must name a layer of the network, got {name!r}. Nearest: {', '.join(nearest)}.")
    return name


def last_blocks(model: Any) -> list[str]:
    """The name of every stage's last block.

    Raises:
        UserError: the network has no stages.
    """
    if not hasattr(model, "stages"):
        raise UserError(
            f"An inspected network must have stages, as residual networks do, got a {type(model).__name__}."
        )
    return [f"stages.{index}.{len(stage) - 1}" for index, stage in enumerate(model.stages)]


def _forward(
    model: Any, images: Array, layers: Collection[str] | None = None, shifts: Mapping[str, Array] | None = None
) -> tuple[Array, dict[str, Array]]:
    """Logits and outputs of layers, by default of all. Shifts are added to the outputs of the layers that they name."""

    def add(shift: Array) -> Callable[[Array], Array]:
        return lambda output: output + shift.astype(output.dtype)

    additions = {name: add(shift) for name, shift in (shifts or {}).items()}
    with replace(model, additions), capture(model, layers) as outputs:
        return model(images), outputs
