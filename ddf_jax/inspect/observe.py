"""What a network computes inside for some images: outputs of layers, their gradients, generated filters."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.capture import Call, intercepted

Shapes = dict[str, tuple[int, ...]]  # by the layer's path, joined by dots

# By the name that a layer gives its generator: what that makes, and its rank.
GENERATORS = {
    "spatial_branch": ("spatial_filters", 5),  # [B, H, W, G, T]
    "channel_branch": ("channel_filters", 3),  # [B, T, C]
    "predict": ("shared_kernels", 5),  # [B, K, K, C, D]
}


class Observation(NamedTuple):
    """What is seen of B images; layers by name."""

    logits: Array  # [B, N]
    outputs: dict[str, Array]  # of any shape, [B, H, W, C] mostly
    gradients: dict[str, Array]  # of each image's largest logit, with respect to the output


def layer_shapes(model: nnx.Module, images: Any) -> Shapes:
    """What every submodule of `model` returns for such images, without computing it."""
    structure, variables = nnx.split(model)
    outputs = jax.eval_shape(lambda v, x: _forward(nnx.merge(structure, v), x, {})[1], variables, images)
    return {name: output.shape for name, output in outputs.items()}


def find_layer(shapes: Shapes, name: str) -> str:
    """`name`, if there is such a layer.

    Raises:
      ValueError: there is none; the message names the nearest.
    """
    if name not in shapes:
        nearest = difflib.get_close_matches(name, shapes, n=3, cutoff=0.0)
        raise ValueError(f"`--layer` must name a layer of the network, got {name!r}. Nearest: {', '.join(nearest)}.")
    return name


def ends_of_stages(model: Any) -> list[str]:
    """The last block of every stage.

    Raises:
      ValueError: the network has no stages.
    """
    if not hasattr(model, "stages"):
        raise ValueError(
            f"A network must have stages, as residual networks do, to look into them; got a {type(model).__name__}."
        )
    return [f"stages.{index}.{len(stage) - 1}" for index, stage in enumerate(model.stages)]


def generators(shapes: Shapes, layer: str) -> dict[str, str]:
    """What the generators in a layer make, by their names."""
    found = {}
    for name, shape in shapes.items():
        kind, rank = GENERATORS.get(name.rpartition(".")[2], ("", 0))
        if f"{name}.".startswith(f"{layer}.") and len(shape) == rank:
            found[name] = kind
    return found


def observe(model: nnx.Module, images: Array, layers: Sequence[str], *, gradients: Sequence[str] = ()) -> Observation:
    """Runs `model`, which is in evaluation mode, on images [B, H, W, C].

    Args:
      layers: names of the layers whose output is asked for, as `layer_shapes` has them.
      gradients: those whose gradient is asked for.
    """
    structure, variables = nnx.split(model)
    shapes = layer_shapes(model, images)

    @jax.jit
    def run(variables: nnx.State, images: Array) -> Observation:
        def best_logits(shifts: Mapping[str, Array]) -> tuple[Array, tuple[Array, dict[str, Array]]]:
            logits, outputs = _forward(nnx.merge(structure, variables), images, shifts, layers)
            logits = logits.astype(jnp.float32)
            return logits.max(-1).sum(), (logits, outputs)

        # The gradient for what is added to an output, at 0, is the output's own.
        shifts = {name: jnp.zeros(shapes[name], jnp.float32) for name in gradients}
        slopes, (logits, outputs) = jax.grad(best_logits, has_aux=True)(shifts)
        return Observation(logits, outputs, slopes)

    return run(variables, images)


def _forward(
    model: Any, images: Array, shifts: Mapping[str, Array], layers: Collection[str] | None = None
) -> tuple[Array, dict[str, Array]]:
    """Logits, and the outputs of these layers, of all by default, to some of which something is added."""
    outputs: dict[str, Array] = {}

    def kept(path: tuple[Any, ...], call: Call, module: nnx.Module, x: Array) -> Array:
        name, y = ".".join(map(str, path)), call(module, x)
        if name in shifts:
            y += shifts[name].astype(y.dtype)
        if layers is None or name in layers:
            outputs[name] = y
        return y

    with intercepted(model, kept):
        return model(images), outputs
