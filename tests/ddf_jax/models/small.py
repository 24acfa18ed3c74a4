"""Small models: every registered classifier, narrow and short, with random parameters."""

import fnmatch
import functools
from typing import Any

import jax
import numpy as np
from flax import nnx

from ddf_jax.models import get_config, list_models

# Options with which every group and every squeezed layer of a narrow model has channels.
NARROW = {
    "ddf_[!s]*": {"squeeze_ratio": 1.0},  # of few squeezed channels a ReLU may leave none
    "ddf_sigmoid*": {"squeeze_ratio": 1.0},
    "binet*_dc_ca": {"squeeze_ratio": 1.0},
    "rednet*": {"group_channels": 4},
    "dcdc_*": {"group_channels": 4},
    # The residual sums of a second block in stage 2 saturate a sigmoid.
    "binet*[0-9]": {"group_channels": 4, "static_groups": 4, "blocks": (2, 1)},
    "nat_*": {"head_channels": 4, "kernel_size": 3},
    "resnext*": {"width": 16},
    "san*": {"width": 64, "stem_blocks": 1, "kernel_size": 3},
    "res2net*": {"scale_width": 64},
    "sasa_*": {"heads": 2, "kernel_size": 3},
    "lrnet*": {"kernel_size": 3},
}


# Parameters on which nothing depends: added to all logits of a softmax, and to both positions of a difference.
WITHOUT_EFFECT = {"san10": ("spatial_branch.span.bias", "spatial_branch.position.bias")}


def shallow(name: str, **options) -> Any:
    """The named model, narrow and short: two of its three blocks change the shape and one does not."""
    for pattern, narrow in NARROW.items():
        options = {**(narrow if fnmatch.fnmatch(name, pattern) else {}), **options}
    return get_config(name, **{"num_classes": 5, "width": 8, "blocks": (1, 2), **options})


# One name for each distinct small configuration: members of a family that differ in depth alone are equal when short.
DISTINCT = list({shallow(name): name for name in reversed(list_models(task="classification"))}.values())


@functools.cache
def _structure_and_shapes(config: Any) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0))))


def abstract_model(config: Any) -> Any:
    return nnx.merge(*_structure_and_shapes(config), copy=True)


def drawn(config: Any) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Structure, random parameters and the remaining state of a model.

    An initial zero would hide a branch, and the compilation of the initialisers takes longer than the tests.
    """
    structure, parameters, rest = nnx.split(abstract_model(config), nnx.Param, ...)
    rng = np.random.default_rng(0)
    usual = {"mean": 0.0, "var": 1.0}

    def draw(p):
        return rng.normal(float(len(p.shape) == 1), 0.2, p.shape).astype(p.dtype)

    def fill(path, value):
        return jax.tree.map(lambda p: np.full(p.shape, usual[path[-1]], p.dtype), value)

    return structure, jax.tree.map(draw, parameters), nnx.map_state(fill, rest)
