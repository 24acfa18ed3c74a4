"""Whole networks on images whose rows are split over devices: values and gradients of whole images, and no gather."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ddf_jax import create
from ddf_jax.functional import height_split
from ddf_jax.layers import CARAFE, Bilinear, DDFUp, Deconvolution, Nearest, PACUp, PixelShuffle
from tests.split_rows import Collectives, check_as_whole, collectives, mesh_of


def check(name: str, height: int, data: int, size: int, **options: Any) -> Collectives:
    """Asserts that loss, gradients and BatchNorm's statistics are those of one device, in training mode."""
    sharding = NamedSharding(mesh_of(height, data), P("data", "height"))
    whole = NamedSharding(sharding.mesh, P())
    with jax.enable_x64(True):
        float64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        model = create(name, num_classes=5, **float64, **options, rngs=nnx.Rngs(0))
        graph, parameters, rest = nnx.split(model, nnx.Param, ...)
        rng = np.random.default_rng(0)
        # With initial zeros, values before a ReLU may be 0 but for rounding: differences of a pixel and itself.
        parameters = jax.tree.map(lambda leaf: leaf + rng.normal(scale=0.1, size=leaf.shape), parameters)
        x = rng.normal(size=(4, size, size, 3))

        def step(split: NamedSharding | None) -> Any:
            def loss(parameters: Any, rest: Any, x: Any) -> Any:
                model = nnx.merge(graph, parameters, rest, copy=True)
                model.train()
                with height_split(split):
                    logits = model(x)
                return jnp.sin(logits).sum(), nnx.state(model, nnx.BatchStat)

            return jax.jit(jax.value_and_grad(loss, has_aux=True))

        expected = jax.device_get(step(None)(parameters, rest, x))
        placed = (*jax.device_put((parameters, rest), whole), jax.device_put(x, sharding))
        program = step(sharding).lower(*placed).compile()
        found = jax.device_get(program(*placed))
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for value, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(value, right, rtol=0, atol=1e-12 * scale)
    return collectives(program)


SMALL = {"stem": "small", "blocks": (1,), "width": 8}
LARGER = {"blocks": (1, 1), "width": 16}


@pytest.mark.parametrize(
    ("name", "height", "data", "size", "options"),
    [
        pytest.param("ddf_resnet50", 2, 2, 8, SMALL, marks=pytest.mark.slow),  # test_sharding.py trains a network so
        pytest.param("ddf_resnet50", 4, 2, 64, LARGER, marks=pytest.mark.slow),
        pytest.param("ddf_resnet18", 8, 1, 64, LARGER, marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", 4, 2, 64, LARGER, marks=pytest.mark.slow),
    ],
)
def test_a_network_exchanges_halos_and_sums_alone(name, height, data, size, options):
    found = check(name, height, data, size, **options)
    assert {*found.counts} == {"collective-permute", "all-reduce"}


# Each with its own stem or transition between stages. Attention over more than a window's rows gathers them.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("axial_resnet_s", {"stem": "axial", "width": 16}),
        ("dcd_resnet50", {}),
        ("dynet50", {}),
        ("fca_resnet50", {"width": 16}),
        ("lrnet26", {"kernel_size": 3}),
        ("nat_mini", {"head_channels": 4, "kernel_size": 3}),
        ("odconv_resnet50", {}),
        ("san10", {"width": 32, "stem_blocks": 1, "kernel_size": 3}),
        ("sasa_resnet26", {"heads": 2, "kernel_size": 3}),
    ],
    ids=str,
)
def test_a_network_of_another_layer_computes_as_one_device(name, options):
    check(name, 2, 2, 32, **{"blocks": (1, 1), "width": 8, **options})


@pytest.mark.slow
@pytest.mark.parametrize("layer", [Nearest, Bilinear, PixelShuffle, Deconvolution, CARAFE, DDFUp, PACUp])
def test_an_upsampler_exchanges_halos_and_sums_alone(layer):
    with jax.enable_x64(True):
        model = layer(8, scale=2, dtype=jnp.float64, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        graph, variables = nnx.split(model)
    mesh, spec = mesh_of(4, 2), P("data", "height")
    x = np.random.default_rng(0).normal(size=(2, 8, 4, 8))
    forward, both = check_as_whole(
        lambda x: nnx.merge(graph, variables, copy=True)(x),
        mesh,
        [x],
        [spec],
        within=functools.partial(height_split, NamedSharding(mesh, spec)),
    )
    assert {*forward.counts, *both.counts} <= {"collective-permute", "all-reduce"}
