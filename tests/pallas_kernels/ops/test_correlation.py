"""The local correlation and the attention in a neighbourhood, against float64 loops."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pallas_kernels import local_correlation, neighborhood_attention
from pallas_kernels.ops.correlation import correlate
from pallas_kernels.ops.primitive import apply
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels.ops.test_partition import collectives
from tests.pallas_kernels.ops.test_triton import COLUMN, QUICKLY, Interpreted


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def correlation_loop(query, key, spec: FilterSpec, groups: int) -> np.ndarray:
    batch, rows, columns, channels = query.shape
    out = np.zeros((batch, rows, columns, groups, spec.taps))
    for h, w, (t, (i, j)) in itertools.product(range(rows), range(columns), enumerate(np.ndindex(spec.kernel_size))):
        row = spec.stride[0] * h + spec.dilation[0] * i - spec.origin[0]
        column = spec.stride[1] * w + spec.dilation[1] * j - spec.origin[1]
        if 0 <= row < key.shape[1] and 0 <= column < key.shape[2]:
            products = query[:, h, w] * key[:, row, column]
            out[:, h, w, :, t] = products.reshape(batch, groups, channels // groups).sum(-1)
    return spec.factor * out


def attention_loop(q, k, v, bias, *, size, heads: int, dilation, border: str) -> np.ndarray:
    batch, height, width, channels = q.shape
    out = np.zeros(v.shape)
    split = (batch, heads, channels // heads)

    def start(position: int, side: int, step: int, length: int) -> int:
        """Of the window, along one axis."""
        first = position - step * (side // 2)
        if border != "shift":
            return first
        while first < 0:
            first += step
        while first + step * (side - 1) >= length:
            first -= step
        return first

    for h, w in np.ndindex(height, width):
        logits, values = [], []
        first = start(h, size[0], dilation[0], height), start(w, size[1], dilation[1], width)
        for t, (i, j) in enumerate(np.ndindex(*size)):
            row, column = first[0] + dilation[0] * i, first[1] + dilation[1] * j
            inside = 0 <= row < height and 0 <= column < width
            if not inside and border == "mask":
                continue
            key, value = (a[:, row, column] if inside else np.zeros((batch, channels)) for a in (k, v))
            logit = (q[:, h, w] * key).reshape(split).sum(-1) * (channels // heads) ** -0.5
            if border == "shift":
                offset = (row - h) // dilation[0] + size[0] - 1, (column - w) // dilation[1] + size[1] - 1
                t = offset[0] * (2 * size[1] - 1) + offset[1]
            logits.append(logit + bias[:, t])
            values.append(value.reshape(split))
        powers = np.exp(np.stack(logits))
        weights = powers / powers.sum(0)
        out[:, h, w] = (weights[..., None] * np.stack(values)).sum(0).reshape(batch, channels)
    return out


def check(function: Callable[..., Any], loop: Callable[..., np.ndarray], *arrays: np.ndarray) -> None:
    """Asserts the value, and the derivative of a weighted sum along a direction against central differences."""
    expected = loop(*arrays)
    weights = normal(*expected.shape, seed=5)
    steps = [normal(*a.shape, seed=6 + i) for i, a in enumerate(arrays)]
    moved = [loop(*(a + sign * 1e-5 * s for a, s in zip(arrays, steps, strict=True))) for sign in (1, -1)]
    with jax.enable_x64(True):

        def both(*arrays):
            y, pull_back = jax.vjp(function, *arrays)
            return y, pull_back(weights)

        y, gradients = jax.jit(both)(*map(jnp.asarray, arrays))
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    slope = sum(float((np.asarray(g) * s).sum()) for g, s in zip(gradients, steps, strict=True))
    assert slope == pytest.approx(float(((moved[0] - moved[1]) * weights).sum()) / 2e-5, rel=1e-7)


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"kernel_size": 3, "stride": (2, 1), "dilation": (1, 2), "scale": 0.25}, 2),
        ({"kernel_size": (2, 4), "padding": ((0, 1), (3, 0))}, 3),
        ({"kernel_size": (1, 5), "padding": "VALID", "stride": 2}, 1),
    ],
    ids=str,
)
def test_the_local_correlation_is_the_loop(options, groups):
    spec = FilterSpec(
        options["kernel_size"],
        options.get("stride", 1),
        dilation=options.get("dilation", 1),
        padding=((0, 0), (0, 0)) if options.get("padding") == "VALID" else options.get("padding"),
        factor=options.get("scale", 1.0),
    )
    key = normal(2, 5, 7, 6)
    query = normal(2, *spec.grid((5, 7)), 6, seed=1)
    check(
        lambda query, key: local_correlation(query, key, groups=groups, **options),
        lambda query, key: correlation_loop(query, key, spec, groups),
        query,
        key,
    )


@pytest.mark.parametrize("border", [pytest.param("zero", marks=pytest.mark.slow), "mask", "shift"])
def test_neighborhood_attention_is_the_loop(border):
    options: dict[str, Any] = {"dilation": (2, 1), "border": border}
    size = (3, 5)
    bias = normal(2, 45 if border == "shift" else 15, seed=3)
    check(
        lambda q, k, v, bias: neighborhood_attention(q, k, v, kernel_size=size, num_heads=2, bias=bias, **options),
        lambda q, k, v, bias: attention_loop(q, k, v, bias, size=size, heads=2, **options),
        *(normal(1, 7, 6, 4, seed=seed) for seed in range(3)),
        bias,
    )


def test_the_kernels_compute_the_local_correlation():
    spec, groups = FilterSpec((1, 3), stride=2, factor=0.5), 2
    key, query = normal(2, 3, 5, 4).astype(np.float32), normal(2, 2, 3, 4, seed=1).astype(np.float32)
    kernels = (Interpreted(COLUMN, together=False),)

    def correlation(query, key):
        operands = {"x": key, "y": query}
        options = {"spec": spec, "size": (3, 5), "groups": groups, "preference": kernels}
        return apply({"spatial": jnp.dtype(jnp.float32)}, operands, **options)["spatial"][:, :, :, 0]

    def both(query, key):
        out, pull_back = jax.vjp(correlation, query, key)
        return out, pull_back(jnp.ones_like(out))

    out, cotangents = jax.jit(both).lower(query, key).compile(QUICKLY)(query, key)
    np.testing.assert_allclose(out, correlation_loop(query, key, spec, groups), rtol=1e-5, atol=1e-5)
    expected = jax.vjp(lambda *a: correlate(*a, kernel_size=(1, 3), stride=2, groups=2, scale=0.5), query, key)[1]
    for found, wanted in zip(cotangents, expected(np.ones_like(out)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", [AxisType.Auto, pytest.param(AxisType.Explicit, marks=pytest.mark.slow)])
def test_samples_and_groups_are_split_without_a_collective(mode):
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(mode, mode))
    arrays = [normal(2, 4, 5, 16, seed=seed).astype(np.float32) for seed in range(3)]

    def attend(q, k, v):
        return neighborhood_attention(q, k, v, kernel_size=3, num_heads=8, border="mask")

    def both(*arrays):
        y, pull_back = jax.vjp(attend, *arrays)
        return y, pull_back(y)

    expected = jax.jit(both)(*arrays)
    with jax.set_mesh(mesh):
        placed = jax.device_put(arrays, NamedSharding(mesh, P("data", None, None, "model")))
        program = jax.jit(both).lower(*placed).compile()
        assert not collectives(program)
        found = program(*placed)
        assert found[0].sharding.is_equivalent_to(placed[0].sharding, 4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *jax.device_get((found, expected))
    )


X: Any = np.zeros((1, 4, 5, 6), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: local_correlation(X, X[..., :4], kernel_size=3), r"`query` must be \[B, Ho, Wo, C\] = \(1, 4, 5, 4\)"),
        (lambda: local_correlation(X, X, kernel_size=3, groups=4), "`groups` must divide .* C=6, got 4"),
        (lambda: local_correlation(X, X, kernel_size=0), "`kernel_size` must be an int ≥ 1 or two of them"),
        (lambda: local_correlation(X[:0], X[:0], kernel_size=3, implementation="c"), "`implementation` must be None"),
        (
            lambda: jax.jit(lambda scale: local_correlation(X, X, kernel_size=3, scale=scale))(2.0),
            "`scale` must be a number that is known while tracing, got .* Multiply an array by a traced one.",
        ),
        (lambda: neighborhood_attention(X, X, X, kernel_size=2, num_heads=2), "`kernel_size` must be odd, got 2"),
        (lambda: neighborhood_attention(X, X, X, kernel_size=3, num_heads=4), "`num_heads` must divide .* got 4"),
        (
            lambda: neighborhood_attention(X, X, X, kernel_size=3, num_heads=2, scale=X),
            "`scale` must be a number that",
        ),
        (lambda: neighborhood_attention(X, X[:, :3], X, kernel_size=3, num_heads=2), "`k` must have the shape of `q`"),
        (
            lambda: neighborhood_attention(X, X, X, kernel_size=5, num_heads=2, border="shift"),
            r"border='shift' needs H ≥ kernel_size·dilation = 5, got H=4",
        ),
        (
            lambda: neighborhood_attention(X, X, X, kernel_size=3, num_heads=2, bias=X[0, 0]),
            r"`bias` must be \[num_heads, taps of the window\] = \(2, 9\), got \(5, 6\)",
        ),
    ],
    ids=range(11),
)
def test_a_wrong_call_states_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
