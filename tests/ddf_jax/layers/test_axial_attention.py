"""Axial attention against its formula."""

import functools

import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import AxialAttention
from tests.ddf_jax.layers import formulas

X = formulas.image(1, 5, 4, 8)


def attended(x: np.ndarray, p: dict, *, heads: int, span: int | None) -> np.ndarray:
    """Along the second axis, one query at a time. With a span, places outside have keys and values of 0."""
    depth = x.shape[-1] // heads
    projected = formulas.norm(formulas.linear(x, p["project"]), p["project_norm"])
    relative, middle = p["relative"], len(p["relative"]) // 2
    y = np.zeros(x.shape)
    for b, h, i in np.ndindex(x.shape[:3]):
        reach = range(i - span // 2, i + span // 2 + 1) if span else range(x.shape[2])
        outside = {j: np.zeros(2 * x.shape[-1]) for j in reach if not 0 <= j < x.shape[2]}
        at = {j: outside[j] if j in outside else projected[b, h, j] for j in reach}
        parts = {j: np.split(value.reshape(heads, -1), [depth // 2, depth], axis=1) for j, value in at.items()}
        query = np.split(projected[b, h, i].reshape(heads, -1), [depth // 2], axis=1)[0]
        embedded = {j: np.split(relative[middle + i - j], [depth // 2, depth]) for j in reach}
        of_keys = {j: np.split(relative[middle + j - i], [depth // 2, depth])[1] for j in reach}
        terms = np.stack(
            [
                np.concatenate([(query * parts[j][1]).sum(1), query @ embedded[j][0], parts[j][1] @ of_keys[j]])
                for j in reach
            ]
        )
        logits = formulas.norm(terms, p["logits_norm"]).reshape(len(terms), 3, heads).sum(1)
        weights = np.exp(logits) / np.exp(logits).sum(0)
        values = np.sum([w[:, None] * parts[j][2] for w, j in zip(weights, reach, strict=True)], axis=0)
        places = np.sum([w[:, None] * embedded[j][2] for w, j in zip(weights, reach, strict=True)], axis=0)
        pairs = np.stack([values.reshape(-1), places.reshape(-1)], axis=1).reshape(-1)
        y[b, h, i] = formulas.norm(pairs, p["output_norm"]).reshape(-1, 2).sum(1)
    return y


@pytest.mark.parametrize(("axis", "span"), [("height", None), ("width", 3)])
def test_axial_attention(axis, span):
    layer = formulas.drawn(functools.partial(AxialAttention, 8, length=5, axis=axis, heads=2, span=span, stride=2))
    lines = X.swapaxes(1, 2) if axis == "height" else X
    expected = attended(lines, formulas.parameters(layer), heads=2, span=span)
    expected = expected.swapaxes(1, 2) if axis == "height" else expected
    formulas.check(layer, formulas.average_pool(expected, 2), X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "`heads` must divide half of channels=8, got 3"),
        ({"heads": 2, "span": 4}, "`span` must be odd"),
        ({"heads": 2, "implementation": "xla"}, "`implementation` must be None without a `span`, got .xla."),
        ({"heads": 2, "axis": "depth"}, "`axis` must be height or width"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        AxialAttention(8, **options, rngs=nnx.Rngs(0))
