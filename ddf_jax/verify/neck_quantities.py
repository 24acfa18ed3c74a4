"""Everything that the feature pyramid with involutions computes on its reference's features."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ddf_jax.checkpoints.rules import official_tensors
from ddf_jax.layers import Involution
from ddf_jax.models import FPN
from ddf_jax.models.resnet import FeatureInfo
from ddf_jax.models.slots import ChannelwiseOp, partial_layer

CHANNELS = (32, 48, 64, 80)
PARTS: dict[str, dict[str, Any]] = {
    "faster": {"extra_levels": 1},
    "retinanet": {"extra_levels": 2, "extra": "convolution"},
}
"""Options of the pyramid in each part of the reference; RetinaNet's has not the finest features."""
MODES = ("eval", "train")


def abstract_neck(part: str) -> FPN:
    """The pyramid of a part, in float64 and without arrays."""
    stages = [FeatureInfo(channels, 4 * 2**level) for level, channels in enumerate(CHANNELS)][_first(part) :]
    op = ChannelwiseOp(partial_layer(Involution))
    options = {"channels": 64, "op": op, "param_dtype": jnp.float64, **PARTS[part]}
    return nnx.eval_shape(lambda: FPN(stages, **options, rngs=nnx.Rngs(0)))


def neck_quantities(fpn: FPN, part: str, seed: int) -> dict[str, np.ndarray]:
    """`PART/eval/…` and `PART/train/…`: outputs y, gradients dx of the features, loss and norms of other gradients.

    Args:
        fpn: with the reference's weights.
        part: one of `PARTS`.
        seed: of the reference; that of the features is 100 more, that of the loss's weights 200 more.
    """
    shapes = [(2, channels, 40 >> level, 56 >> level) for level, channels in enumerate(CHANNELS)]
    features = _normal(seed + 100, shapes)[_first(part) :]
    found: dict[str, np.ndarray] = {}
    for mode in MODES:
        getattr(fpn, mode)()
        of_mode = _quantities(fpn, features, seed, first=_first(part))
        if mode == "eval":
            of_mode = {name: value for name, value in of_mode.items() if "running_mean" not in name}
        found |= {f"{part}/{mode}/{name}": value for name, value in of_mode.items()}
    return found


def _first(part: str) -> int:
    return int(part == "retinanet")


def _quantities(fpn: FPN, features: Sequence[Array], seed: int, *, first: int) -> dict[str, np.ndarray]:
    structure, state = nnx.split(fpn)
    outputs = jax.eval_shape(lambda state, features: nnx.merge(structure, state)(features), state, features)
    shapes = [(len(y), y.shape[3], *y.shape[1:3]) for y in outputs]
    weights = _normal(seed + 200, shapes)

    @jax.jit
    def program(state: Any, features: Sequence[Array]) -> Any:
        def loss(fpn: FPN, features: Sequence[Array]) -> tuple[Array, list[Array]]:
            outputs = fpn(features)
            return sum(((y * w).sum() for y, w in zip(outputs, weights, strict=True)), start=jnp.zeros(())), outputs

        fpn = nnx.merge(structure, state)
        (total, outputs), (of_parameters, of_features) = nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
            fpn, features
        )
        return total, outputs, _named(of_parameters), of_features, _named(nnx.state(fpn, nnx.BatchStat))

    total, outputs, of_parameters, of_features, statistics = jax.tree.map(np.asarray, program(state, features))
    found = {"loss": total, "shapes": np.array(shapes)}
    found |= {f"y{level}": y.transpose(0, 3, 1, 2) for level, y in enumerate(outputs)}
    found |= {f"dx{level}": dx.transpose(0, 3, 1, 2) for level, dx in enumerate(of_features, start=first)}
    norms = official_tensors(of_parameters)
    found |= {f"grad_norm/{name}": np.asarray(np.linalg.norm(gradient)) for name, gradient in norms.items()}
    for name, value in official_tensors(statistics).items():
        if name.endswith("running_mean"):
            found[f"running_mean_abs_sum/{name}"] = np.abs(value).sum()
    return found


def _named(state: Any) -> dict[str, Array]:
    return {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(state)}


def _normal(seed: int, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Normal numbers of one stream, drawn in torch's layout."""
    generator = np.random.Generator(np.random.Philox(seed))
    drawn = (generator.standard_normal(math.prod(shape)).reshape(shape) for shape in shapes)
    return [jnp.asarray(array.transpose(0, 2, 3, 1)) for array in drawn]
