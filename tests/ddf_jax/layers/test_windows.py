"""Layers that compare a pixel with its neighbourhood, against their formulas."""

import functools
import itertools

import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import (
    BlockAttention,
    CostVolume,
    LayerNorm,
    LocalRelation,
    NeighborhoodAttention,
    SelfAttention,
    flownet_correlation,
    pwc_correlation,
)
from tests.ddf_jax.layers import formulas

X = formulas.image(2, 5, 6, 8)


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def heads_of(x: np.ndarray, heads: int) -> np.ndarray:
    """[..., C] to [..., heads, C/heads]."""
    return x.reshape(*x.shape[:-1], heads, -1)


def of_offsets(p: dict) -> np.ndarray:
    """Embeddings [K, K, heads, d]: a row's half and a column's half."""
    rows, columns = p["rows"], p["columns"]
    return np.stack([[np.concatenate([row, column], axis=-1) for column in columns] for row in rows])


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_self_attention_over_zeros_at_the_border(stride):
    layer = formulas.drawn(functools.partial(SelfAttention, 8, 12, kernel_size=3, heads=2, stride=stride))
    p = formulas.parameters(layer)
    query, key, value = np.split(formulas.linear(X, p["project"]), 3, axis=-1)
    offsets = of_offsets(p["offsets"])
    y = np.zeros(query.shape)
    keys, values = formulas.windows(key, 3), formulas.windows(value, 3)
    for ((i, j), near), (_, seen) in zip(keys, values, strict=True):
        queries = heads_of(query[:, i, j], 2)
        logits = np.einsum("bnd,bklnd->bnkl", queries, heads_of(near, 2) + offsets)
        weights = softmax(logits.reshape(2, 2, 9)).reshape(logits.shape)
        y[:, i, j] = np.einsum("bnkl,bklnd->bnd", weights, heads_of(seen, 2)).reshape(2, -1)
    formulas.check(layer, formulas.average_pool(y, stride), X)


def test_block_attention_with_values_by_place():
    layer = formulas.drawn(functools.partial(BlockAttention, 8, 4, block_size=4, heads=2, mixtures=3))
    p = formulas.parameters(layer)
    offsets = of_offsets(p["offsets"])
    projected = formulas.linear(np.pad(X, ((0, 0), (0, 3), (0, 2), (0, 0))), p["project"])
    query, key, *maps = np.split(projected, 5, axis=-1)
    y = np.zeros((2, 5, 6, 4))
    for i, j in np.ndindex(5, 6):
        block = list(itertools.product(range(i // 4 * 4, i // 4 * 4 + 4), range(j // 4 * 4, j // 4 * 4 + 4)))
        logits, values = [], []
        for r, s in block:
            key_and_offset = heads_of(key[:, r, s], 2) + offsets[r - i + 3, s - j + 3]
            logits.append((heads_of(query[:, i, j], 2) * key_and_offset).sum(-1))
            shares = softmax(p["mixtures"] @ (p["rows"][r % 4] + p["columns"][s % 4]))
            values.append(heads_of(np.einsum("m,mbc->bc", shares, [v[:, r, s] for v in maps]), 2))
        weights = softmax(np.stack(logits, axis=-1))
        y[:, i, j] = np.einsum("bnt,tbnd->bnd", weights, values).reshape(2, 4)
    formulas.check(layer, y, X)


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_local_relation_leaves_out_what_is_outside_and_its_last_group_is_smaller(stride):
    layer = formulas.drawn(functools.partial(LocalRelation, 8, kernel_size=3, stride=stride, group_channels=3))
    p = formulas.parameters(layer)
    query, key = (formulas.linear(X, p[name]) for name in ("query", "key"))  # [B, H, W, 3]
    y = np.zeros((2, -(-5 // stride), -(-6 // stride), 8))
    for i, j in np.ndindex(*y.shape[1:3]):
        logits, pixels = [], []
        for dr, ds in itertools.product((-1, 0, 1), repeat=2):
            r, s = stride * i + dr, stride * j + ds
            if 0 <= r < 5 and 0 <= s < 6:
                prior = formulas.linear(
                    formulas.relu(formulas.linear(np.array([dr, ds]), p["prior"]["hidden"])), p["prior"]["logits"]
                )
                logits.append(query[:, stride * i, stride * j] * key[:, r, s] + prior)
                pixels.append(X[:, r, s])
        weights = softmax(np.stack(logits, axis=-1))[:, [0, 0, 0, 1, 1, 1, 2, 2]]
        y[:, i, j] = np.einsum("bct,tbc->bc", weights, pixels)
    formulas.check(layer, formulas.linear(y, p["mix"]), X)


@pytest.mark.parametrize("dilation", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_neighbourhood_attention_stays_inside_or_sees_zeros_beyond_a_small_image(dilation):
    layer = formulas.drawn(functools.partial(NeighborhoodAttention, 8, heads=2, kernel_size=3, dilation=dilation))
    p = formulas.parameters(layer)
    height, width = max(5, 3 * dilation), 6
    padded = np.pad(X, ((0, 0), (0, height - 5), (0, 0), (0, 0)))
    query, key, value = (heads_of(part, 2) for part in np.split(formulas.linear(padded, p["qkv"]), 3, axis=-1))

    def nearest(position: int, length: int) -> list[int]:
        alike = [at for at in range(length) if (at - position) % dilation == 0]
        return min(
            (alike[start : start + 3] for start in range(len(alike) - 2)),
            key=lambda found: abs(found[1] - position),
        )

    y = np.zeros((2, 5, 6, 8))
    for i, j in np.ndindex(5, 6):
        window = list(itertools.product(nearest(i, height), nearest(j, width)))
        logits = [
            (query[:, i, j] * key[:, r, s]).sum(-1) / 2 + p["bias"][:, (r - i) // dilation + 2, (s - j) // dilation + 2]
            for r, s in window
        ]
        weights = softmax(np.stack(logits, axis=-1))
        y[:, i, j] = np.einsum("bnt,tbnd->bnd", weights, [value[:, r, s] for r, s in window]).reshape(2, 8)
    formulas.check(layer, formulas.linear(y, p["project"]), X)


def test_layer_norm():
    layer = formulas.drawn(functools.partial(LayerNorm, 8))
    p = formulas.parameters(layer)
    centred = X - X.mean(-1, keepdims=True)
    formulas.check(layer, centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"], X)


def test_cost_volume_is_the_mean_product_by_displacement():
    second = formulas.image(2, 5, 6, 8, seed=2)
    expected = np.zeros((2, 5, 6, 9))
    for (i, j), seen in formulas.windows(second, 3, dilation=2):
        expected[:, i, j] = np.einsum("bc,bklc->bkl", X[:, i, j], seen).reshape(2, 9) / 8
    expected = np.where(expected > 0, expected, 0.1 * expected)
    formulas.check(CostVolume(2, step=2), expected, X, second)


def test_cost_volumes_of_the_papers_have_441_and_81_displacements():
    flownet, pwc = flownet_correlation(), pwc_correlation()
    assert (flownet.kernel_size**2, flownet.step) == (441, 2)
    assert (pwc.kernel_size**2, pwc.step) == (81, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (functools.partial(SelfAttention, 8, 12, heads=4), "`heads` must divide channels=12 into even numbers"),
        (functools.partial(NeighborhoodAttention, 8, heads=3), "`heads` must divide channels=8, got 3"),
        (lambda rngs: CostVolume(5, step=2), "`step` must divide displacement=5, got 2"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(rngs=nnx.Rngs(0))
