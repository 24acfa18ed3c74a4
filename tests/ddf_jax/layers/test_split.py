"""Layers on devices that share the batch, the parameters and the rows of images: numbers of one device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax import layers
from ddf_jax.functional import height_split
from ddf_jax.layers.dynet import CoefficientPrediction, DyNetConv
from ddf_jax.training.devices import make_mesh, rows_split
from ddf_jax.training.mesh_config import MeshConfig
from ddf_jax.training.sharding import shardings

C = 16


class DyNet(nnx.Module):
    """A convolution and its coefficients."""

    def __init__(self, **dtypes: Any):
        self.coefficients = CoefficientPrediction(C, (12,), **dtypes)
        self.conv = DyNetConv(C, 12, stride=2, **dtypes)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x, *self.coefficients(x))


# Each with a stride, a dilation or both where it has them, so that the seams are not those of the plain window.
LAYERS: dict[str, Callable[..., Any]] = {
    "SelfAttention": lambda **dtypes: layers.SelfAttention(C, 12, kernel_size=3, stride=2, heads=2, **dtypes),
    "BlockAttention": lambda **dtypes: layers.BlockAttention(C, 12, stride=2, heads=2, **dtypes),
    "LocalRelation": lambda **dtypes: layers.LocalRelation(C, kernel_size=5, stride=2, group_channels=2, **dtypes),
    "NeighborhoodAttention": lambda **dtypes: layers.NeighborhoodAttention(
        C, heads=2, kernel_size=3, dilation=2, **dtypes
    ),
    "SAN, pairwise": lambda **dtypes: layers.SelfAttentionModule(
        C, 12, kernel_size=3, stride=2, dilation=2, group_channels=4, reduction=4, **dtypes
    ),
    "SAN, patchwise": lambda **dtypes: layers.SelfAttentionModule(
        C, 12, relation="patchwise", kernel_size=3, group_channels=4, reduction=4, **dtypes
    ),
    "AxialAttention along columns": lambda **dtypes: layers.AxialAttention(C, length=5, stride=2, heads=2, **dtypes),
    "AxialAttention along columns, near": lambda **dtypes: layers.AxialAttention(C, heads=2, span=5, **dtypes),
    "AxialAttention along rows, near": lambda **dtypes: layers.AxialAttention(
        C, heads=2, span=3, axis="width", **dtypes
    ),
    "FCA": lambda **dtypes: layers.FCA(C, reduction=2, **dtypes),
    "ODConv": lambda **dtypes: layers.ODConv(C, 12, stride=2, dilation=2, kernels=2, **dtypes),
    "DCD": lambda **dtypes: layers.DCD(C, 12, stride=2, dilation=2, **dtypes),
    "DyNet": DyNet,
    "FullDynamicFilter": lambda **dtypes: layers.FullDynamicFilter(4, **dtypes),
}


def check_equal(found: Any, expected: Any, *, tolerance: float) -> None:
    """Args: the tolerance of the largest value of all, for a gradient may be 0 but for rounding."""
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for value, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(value, right, rtol=0, atol=tolerance * scale)


# SAN's has the most parts: relations under a reflected border, positions, strides, batch normalisation, the operator.
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if "pair" in n else pytest.mark.slow) for n in LAYERS])
def test_devices_that_share_batch_parameters_and_rows_compute_as_one(name: str):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, height=2))
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        float64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        abstract = nnx.eval_shape(lambda: LAYERS[name](**float64, rngs=nnx.Rngs(0)))
        graph, parameters, statistics = nnx.split(abstract, nnx.Param, ...)
        draw = jax.tree.map(lambda leaf: rng.normal(scale=0.5, size=leaf.shape), (parameters, statistics))
        x = rng.normal(size=(4, 16, 6, 4 if name == "FullDynamicFilter" else C))

        def results(parameters: nnx.State, statistics: nnx.State, x: jax.Array) -> Any:
            def loss(parameters: nnx.State, x: jax.Array) -> Any:
                model: Any = nnx.merge(graph, parameters, statistics, copy=True)
                y = model(x)
                return jnp.sin(y).sum(), (y, nnx.state(model, nnx.BatchStat))

            return jax.value_and_grad(loss, (0, 1), has_aux=True)(parameters, x)

        def on_devices(*arrays: Any) -> Any:
            with height_split(rows_split(mesh)):
                return results(*arrays)

        expected = jax.device_get(jax.jit(results)(*draw, x))
        placed = jax.device_put(draw[0], shardings(draw[0], mesh)), jax.device_put(draw[1], shardings(draw[1], mesh))
        found = jax.jit(on_devices)(*placed, jax.device_put(x, rows_split(mesh)))
    check_equal(found, expected, tolerance=1e-12)


@pytest.mark.slow
def test_displaced_maps_are_compared_across_devices():
    """A cost volume has no parameters, but two maps."""
    mesh = make_mesh(MeshConfig(data=2, height=4))
    first, second = np.random.default_rng(0).normal(size=(2, 2, 16, 6, 8)).astype(np.float32)

    def cotangents(first: Any, second: Any) -> Any:
        costs, pull_back = jax.vjp(layers.CostVolume(4, step=2), first, second)
        return costs, pull_back(jnp.sin(costs))

    expected = jax.jit(cotangents)(first, second)
    found = jax.jit(cotangents)(*jax.device_put((first, second), rows_split(mesh)))
    check_equal(found, expected, tolerance=1e-6)
