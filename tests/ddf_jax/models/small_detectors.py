"""Small detectors with random parameters, and a batch of images of odd sizes."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.detection.annotations import Detections, Truths
from ddf_jax.detection.frozen import FROZEN
from ddf_jax.detection.rpn import ProposalSettings
from ddf_jax.detection.sampling import Sampler
from ddf_jax.models import get_config
from ddf_jax.models.detection_networks import Detector, total_loss
from ddf_jax.training.freezing import Unfrozen
from tests.ddf_jax.models.small import abstract_model

SHARES = {"deltas": 0.1, "classes": 0.1, "objectness": 0.1}  # boxes have an area, and few scores are equal

SIZE = (75, 101)
SIZES = np.array([[75, 101], [67, 59]], np.int32)
BOXES = [[4.0, 6, 60, 66], [40, 20, 98, 72], [10, 8, 50, 60]]
LABELS = [3, 0, 4]


class Batch(NamedTuple):
    """Arguments of a detector's loss."""

    image: Any
    size: Any
    truths: Truths


def slow_but(fast, names) -> list[Any]:
    """Parameters of a test, all but `fast` ones in the slow suite."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


def small(family: str, **options: Any) -> Any:
    """The configuration of a narrow and short detector with few proposals and regions."""
    config = get_config(f"{family}_resnet50")
    narrow: dict[str, Any] = {"channels": 32, "num_classes": 5, "num_stuff": 3, "semantic_channels": 32}
    narrow |= {"num_semantic": 6, "head_depth": 1, "backbone_options": {"width": 8, "blocks": (1, 1, 1, 1)}}
    if hasattr(config, "rpn"):
        counts = {"training": ProposalSettings(40, 30), "evaluation": ProposalSettings(30, 20)}
        narrow["rpn"] = dataclasses.replace(config.rpn, sampler=Sampler(32, 0.5), **counts)
    if hasattr(config, "retina"):
        narrow["retina"] = dataclasses.replace(config.retina, before_nms=50)
    for stage in ("regions", "cascade"):
        if hasattr(config, stage):
            heads = {"sampler": Sampler(16, 0.25), "hidden": 16, "mask_depth": 1}
            narrow[stage] = dataclasses.replace(getattr(config, stage), **heads)
    fields = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{name: narrow[name] for name in narrow if name in fields} | options)


def drawn(config: Any) -> tuple[nnx.GraphDef, nnx.State]:
    """Structure and state with random parameters: an initial 0 would hide a branch."""
    model = abstract_model(config)
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], variable: Any) -> Any:
        value = variable.get_value()
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return variable.replace(jax.random.key(0))
        if not isinstance(variable, nnx.Param):
            return variable.replace(jnp.full(value.shape, path[-1] == "var", value.dtype))
        drawn = rng.standard_normal(value.shape)
        if len(value.shape) > 1:
            drawn *= np.sqrt(2 / np.prod(value.shape[:-1])) * SHARES.get(path[-2], 1)
        else:
            drawn = 0.1 * drawn + (path[-1] == "scale")
        return variable.replace(jnp.asarray(drawn.astype(value.dtype)))

    structure, state = nnx.split(model)
    return structure, nnx.map_state(draw, state)


def batch(padding: int = 2, *, objects: bool = True, dtype: Any = np.float32) -> Batch:
    """Two images, of which the second is smaller and has one object less.

    Args:
        padding: rows of the objects beyond the most that an image has; what they hold is not finite or out of range.
        objects: whether there are any.
        dtype: of the images.
    """
    rng = np.random.default_rng(1)
    image, most = rng.standard_normal((2, *SIZE, 3)).astype(dtype), len(BOXES) + padding
    image[1, SIZES[1, 0] :], image[1, :, SIZES[1, 1] :] = 0, 0
    boxes, labels = np.full((2, most, 4), np.nan, dtype), np.full((2, most), 77, np.int32)
    boxes[:, : len(BOXES)], labels[:, : len(BOXES)] = BOXES, LABELS
    boxes[1, :, [0, 2]] *= 0.55  # into the second image
    known = np.arange(most) < np.array([[3], [2]]) * objects
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    masks = (x > boxes[..., 0, None, None]) & (x < boxes[..., 2, None, None])
    masks &= (y > boxes[..., 1, None, None]) & (y < boxes[..., 3, None, None])
    semantic = np.broadcast_to((x // 16 + y // 16) % 3, (2, *SIZE)).astype(np.uint8)
    truths = Truths(*map(jnp.asarray, (boxes, labels, known, np.packbits(masks, axis=-1), semantic)))
    return Batch(jnp.asarray(image), jnp.asarray(SIZES), truths)


def losses_and_gradients(structure: nnx.GraphDef, state: nnx.State, of: Batch) -> tuple[dict, dict]:
    """The losses and, by path, the gradient of each parameter that is not frozen; in a fixed order."""

    def objective(model: Detector) -> tuple[jax.Array, dict]:
        losses = model.loss(*of, fixed_order=True)
        return total_loss(losses), losses

    model = nnx.merge(structure, state, copy=True)
    model.train()
    model.backbone.eval()
    trained = nnx.DiffState(0, nnx.All(nnx.Param, Unfrozen(FROZEN)))
    gradients, losses = nnx.grad(objective, argnums=trained, has_aux=True)(model)
    return losses, {".".join(map(str, path)): gradient[...] for path, gradient in nnx.to_flat_state(gradients)}


def detections(structure: nnx.GraphDef, state: nnx.State, of: Batch) -> Detections:
    """What is found in evaluation."""
    model = nnx.merge(structure, state, copy=True)
    model.eval()
    return model(of.image, of.size)
