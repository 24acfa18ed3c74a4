"""What a residual network may do while it trains: forget features, and compute its blocks again."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.errors import UserError
from ddf_jax.models import create


def make(**options: Any) -> Any:
    return create("resnet18", stem="small", width=8, num_classes=5, **options, rngs=nnx.Rngs(0))


def test_computing_blocks_again_gives_the_same_derivatives_and_statistics_and_keeps_less():
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))

    def differentiate(again: bool) -> tuple[Any, Any, int]:
        structure, parameters, rest = nnx.split(make(blocks=(3,), rematerialize=again), nnx.Param, ...)

        def loss(parameters: Any, x: jax.Array) -> Any:
            model: Any = nnx.merge(structure, parameters, jax.tree.map(jnp.copy, rest))  # which the call may change
            return jnp.square(model(x)).mean(), nnx.state(model, nnx.BatchStat)

        gradients, statistics = jax.jit(jax.grad(loss, has_aux=True))(parameters, x)
        kept = jax.eval_shape(lambda p, x: jax.vjp(lambda p: loss(p, x)[0], p)[1], parameters, x)
        return (
            nnx.to_pure_dict(gradients),
            nnx.to_pure_dict(statistics),
            sum(leaf.size for leaf in jax.tree.leaves(kept)),
        )

    whole, again = differentiate(False), differentiate(True)
    for expected, found in zip(jax.tree.leaves(whole[:2]), jax.tree.leaves(again[:2]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert again[2] < 0.4 * whole[2]


def test_dropout_forgets_its_share_of_the_features_in_training_alone():
    model = make(blocks=(1,), dropout=0.25)
    features = jnp.ones((400, model.head.kernel.shape[0]))
    kept = model.dropout(features)
    assert 0.7 < float((kept != 0).mean()) < 0.8
    np.testing.assert_allclose(kept.max(), 1 / 0.75, rtol=1e-6)
    model.eval()
    np.testing.assert_array_equal(model.dropout(features), features)
    with pytest.raises(UserError, match=r"`dropout` must be a probability in \[0, 1\), got 1.0"):
        make(blocks=(1,), dropout=1.0)
