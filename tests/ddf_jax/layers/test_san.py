"""SAN's self-attention against its formula, one output pixel at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import SelfAttentionModule
from tests.ddf_jax.layers import formulas

GROUPS = 3


def attended(x: np.ndarray, p: dict, *, relation: str, kernel_size: int, stride: int = 1, dilation: int = 1):
    of_relation = p["spatial_branch"]
    query, key = (formulas.linear(x, of_relation[name]) for name in ("query", "key"))
    if relation == "pairwise":
        rows, columns = (np.linspace(-1, 1, length) for length in x.shape[1:3])
        places = formulas.linear(np.stack(np.meshgrid(columns, rows), axis=-1), of_relation["position"])
        query, key = (np.concatenate([part, np.stack([places] * len(x))], axis=-1) for part in (query, key))
    border = dilation * (kernel_size // 2)
    key, value = (
        np.pad(part, ((0, 0), (border, border), (border, border), (0, 0)), "reflect")
        for part in (key, formulas.linear(x, p["value"]))
    )

    def perceptron(related: np.ndarray) -> np.ndarray:
        hidden = formulas.linear(formulas.relu(formulas.norm(related, of_relation["norm1"])), of_relation["reduce"])
        return formulas.linear(formulas.relu(formulas.norm(hidden, of_relation["norm2"])), of_relation["span"])

    y = np.zeros((len(x), -(-x.shape[1] // stride), -(-x.shape[2] // stride), value.shape[-1]))
    for b, i, j in np.ndindex(*y.shape[:3]):
        seen = tuple(slice(stride * at, stride * at + 2 * border + 1, dilation) for at in (i, j))
        keys, values = (part[b][seen].reshape(kernel_size**2, -1) for part in (key, value))
        centre = query[b, stride * i, stride * j]
        if relation == "pairwise":
            weights = np.exp(perceptron(centre - keys))
            weights /= weights.sum(0)
        else:
            weights = perceptron(np.concatenate([centre, keys.reshape(-1)])).reshape(GROUPS, -1).T
        y[b, i, j] = (np.repeat(weights, value.shape[-1] // GROUPS, axis=1) * values).sum(0)
    return y


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 3, "stride": 2, "dilation": 2}, pytest.param({"kernel_size": 5}, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("relation", ["pairwise", "patchwise"])
def test_the_module_is_the_formula_of_the_paper(relation, options):
    sizes = {"group_channels": 4, "reduction": 4}
    layer = formulas.drawn(functools.partial(SelfAttentionModule, 8, 4 * GROUPS, relation=relation, **sizes, **options))
    x = formulas.image(2, 5, 7, 8)
    formulas.check(layer, attended(x, formulas.parameters(layer), relation=relation, **options), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relation": "global"}, r"`relation` must be one of \['pairwise', 'patchwise'\], got 'global'"),
        ({"kernel_size": 4}, "`kernel_size` must be odd, got 4"),
        ({"group_channels": 3}, "`group_channels` must divide `out_channels`, got 3 for out_channels=8"),
        ({"reduction": 17}, "`reduction` must leave at least one channel of in_channels=16, got 17"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SelfAttentionModule(16, 8, rngs=nnx.Rngs(0), **options)


def test_a_map_that_is_too_small_to_be_reflected_is_named():
    layer = nnx.eval_shape(lambda: SelfAttentionModule(16, 8, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"reflected by 3 pixels must have more rows and columns, got \(1, 3, 9, 16\)"):
        nnx.eval_shape(lambda layer, x: layer(x), layer, jax.ShapeDtypeStruct((1, 3, 9, 16), jnp.float32))
