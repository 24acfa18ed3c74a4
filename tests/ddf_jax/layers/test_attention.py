"""Attention layers against their formulas."""

import functools
import itertools

import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import BAM, CBAM, ECA, FCA, AttentionAugmentedConv, SqueezeExcitation
from tests.ddf_jax.layers import formulas

X = formulas.image(2, 5, 7, 8)


def perceptron(x: np.ndarray, p: dict) -> np.ndarray:
    return formulas.linear(formulas.relu(formulas.linear(x, p["squeeze"])), p["excite"])


def test_squeeze_and_excitation():
    layer = formulas.drawn(functools.partial(SqueezeExcitation, 8, reduction=2))
    weights = formulas.sigmoid(perceptron(X.mean((1, 2)), formulas.parameters(layer)))
    formulas.check(layer, X * weights[:, None, None], X)


def test_efficient_channel_attention():
    layer = formulas.drawn(functools.partial(ECA, 8, kernel_size=5))
    kernel = formulas.parameters(layer)["conv"]["kernel"][:, 0, 0]
    padded = np.pad(X.mean((1, 2)), ((0, 0), (2, 2)))
    logits = np.stack([padded[:, c : c + 5] @ kernel for c in range(8)], axis=1)
    formulas.check(layer, X * formulas.sigmoid(logits)[:, None, None], X)


@pytest.mark.parametrize(("channels", "taps"), [(64, 3), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_efficient_channel_attention_chooses_its_size_as_the_paper_does(channels, taps):
    layer = nnx.eval_shape(lambda: ECA(channels, rngs=nnx.Rngs(0)))
    assert layer.conv.kernel.shape == (taps, 1, 1)


@pytest.mark.parametrize("size", [7, 9])
def test_frequency_attention_weighs_each_channel_by_one_frequency(size):
    layer = formulas.drawn(functools.partial(FCA, 8, size=size, frequencies=4, reduction=2))
    p = formulas.parameters(layer)
    pooled = np.zeros((2, size, size, 8))
    for i, j in np.ndindex(size, size):  # windows of torch's adaptive pooling
        rows, columns = (slice(at * n // size, -(-(at + 1) * n // size)) for at, n in zip((i, j), (5, 7), strict=True))
        pooled[:, i, j] = X[:, rows, columns].mean((1, 2))
    z = np.zeros((2, 8))
    for c, (u, v) in enumerate(((0, 0), (0, 0), (0, 1), (0, 1), (6, 0), (6, 0), (0, 5), (0, 5))):
        for i, j in np.ndindex(size, size):
            wave = np.cos(np.pi * u * (i + 0.5) / size) * np.cos(np.pi * v * (j + 0.5) / size) / size
            z[:, c] += wave * 2 ** ((u > 0) / 2 + (v > 0) / 2) * pooled[:, i, j, c]
    weights = formulas.sigmoid(formulas.relu(z @ p["hidden"]["kernel"]) @ p["gate"]["kernel"])
    formulas.check(layer, X * weights[:, None, None], X)


def test_cbam_weighs_channels_then_pixels():
    layer = formulas.drawn(functools.partial(CBAM, 8, reduction=2, kernel_size=3))
    p = formulas.parameters(layer)
    channels = perceptron(X.mean((1, 2)), p["channel"]) + perceptron(X.max((1, 2)), p["channel"])
    z = X * formulas.sigmoid(channels)[:, None, None]
    maps = np.stack([z.max(-1), z.mean(-1)], axis=-1)
    formulas.check(layer, z * formulas.sigmoid(formulas.norm(formulas.conv(maps, p["conv"]), p["norm"])), X)


def test_bam_adds_both_attentions():
    layer = formulas.drawn(functools.partial(BAM, 8, reduction=2, dilation=2))
    p = formulas.parameters(layer)
    channels = formulas.norm(perceptron(X.mean((1, 2)), p["channel"]), p["channel_norm"])
    y = formulas.relu(formulas.norm(formulas.linear(X, p["convs"][0]), p["norms"][0]))
    for index in (1, 2):
        y = formulas.relu(formulas.norm(formulas.conv(y, p["convs"][index], dilation=2), p["norms"][index]))
    pixels = formulas.norm(formulas.linear(y, p["convs"][3]), p["norms"][3])
    formulas.check(layer, X + X * formulas.sigmoid(channels[:, None, None] + pixels), X)


def attended(x: np.ndarray, p: dict, *, heads: int, key_channels: int, size: int) -> np.ndarray:
    """One query pixel, one head at a time."""
    projected = formulas.linear(x, p["project"])
    query, key, value = np.split(projected, [key_channels, 2 * key_channels], axis=-1)
    depth, out = key_channels // heads, value.shape[-1] // heads
    rows, columns = p["relative"]
    y = np.zeros(value.shape)
    positions = list(np.ndindex(x.shape[1:3]))

    def offset(distance: int) -> int:
        return int(np.clip(distance, 1 - size, size - 1)) + size - 1

    for b, (h, w), n in itertools.product(range(len(x)), positions, range(heads)):
        part, values = slice(n * depth, (n + 1) * depth), slice(n * out, (n + 1) * out)
        logits = [
            query[b, h, w, part] @ (key[b, i, j, part] + rows[offset(i - h)] + columns[offset(j - w)]) / depth**0.5
            for i, j in positions
        ]
        weights = np.exp(logits - np.max(logits))
        y[b, h, w, values] = weights / weights.sum() @ np.stack([value[b, i, j, values] for i, j in positions])
    return formulas.linear(y, p["mix"])


@pytest.mark.parametrize("stride", [1, 2])
def test_attention_augmented_convolution(stride):
    sizes = {"heads": 2, "key_channels": 8, "size": 3}
    layer = formulas.drawn(functools.partial(AttentionAugmentedConv, 8, 12, value_channels=4, stride=stride, **sizes))
    p = formulas.parameters(layer)
    attention = attended(formulas.average_pool(X, stride), p, **sizes)
    formulas.check(layer, np.concatenate([formulas.conv(X, p["conv"], stride=stride), attention], axis=-1), X)


def test_pooled_attention_is_enlarged_to_the_size_of_the_convolution():
    sizes = {"heads": 2, "key_channels": 8, "size": 3}
    layer = formulas.drawn(
        functools.partial(AttentionAugmentedConv, 8, 12, value_channels=4, attention_stride=7, **sizes)
    )
    y = formulas.run(layer, X)  # one pixel attends to itself alone and is spread over all
    [[[expected]], _] = attended(formulas.average_pool(X, 7), formulas.parameters(layer), **sizes)
    np.testing.assert_allclose(y[0, ..., 8:], np.broadcast_to(expected, (5, 7, 4)), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (functools.partial(SqueezeExcitation, 8), "must leave at least one unit"),
        (functools.partial(ECA, 8, kernel_size=4), "must be odd"),
        (functools.partial(FCA, 8), "`frequencies` must divide channels=8 and be at most 16, got 16"),
        (functools.partial(FCA, 16, size=5), "`size` must be at least 7"),
        (functools.partial(AttentionAugmentedConv, 8, 16, value_channels=4), "`heads` must divide"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(rngs=nnx.Rngs(0))
