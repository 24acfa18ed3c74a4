"""DCDC against its formula, each branch alone and both together, and per-sample convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from ddf_jax.layers import DCDC, per_sample_conv
from tests.ddf_jax.layers import formulas


def in_context(y: np.ndarray, p: dict) -> np.ndarray:
    """A depthwise convolution with its normalisation, then a 1×1 convolution."""
    context, pointwise = p["layers"][0], p["layers"][1]
    return formulas.linear(
        formulas.norm(formulas.conv(y, context["conv"], groups=y.shape[-1]), context["norm"]), pointwise
    )


def local(x: np.ndarray, p: dict, stride: int) -> np.ndarray:
    p = p["spatial_branch"]
    y = formulas.relu(formulas.norm(in_context(formulas.average_pool(x, stride), p["reduce"]), p["norm"]))
    filters = in_context(y, p["span"])
    return formulas.spatial_filter(x, filters.reshape(*filters.shape[:3], 2, -1), stride=stride)


def shared(x: np.ndarray, p: dict, stride: int) -> np.ndarray:
    y = formulas.linear(x[:, ::stride, ::stride], p["squeeze"])
    if "predict" in p["inner"]:
        kernels = formulas.linear(y.mean((1, 2)), p["inner"]["predict"]).reshape(len(y), 3, 3, 4, 4)
        y = np.concatenate([formulas.conv(y[[b]], {"kernel": kernels[b]}) for b in range(len(y))])
    else:
        y = formulas.conv(y, p["inner"])
    return formulas.linear(y, p["expand"])


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"shared": None},
        {"lsa": False},
        {"lsa": False, "shared": "conv_small", "stride": 2},
        {"lsa": False, "shared": "conv_large", "stride": 2},
    ],
)
def test_dcdc_is_the_formula_of_the_paper(options):
    sizes = {"kernel_size": 3, "shared_kernel_size": 3, "group_channels": 4, "reduction": 2, "width_factor": 1.5}
    layer = formulas.drawn(functools.partial(DCDC, 8, **sizes, **options))
    x, stride, p = formulas.image(2, 5, 7, 8), options.get("stride", 1), formulas.parameters(layer)
    expected = 0.0
    if options.get("lsa", True):
        expected = expected + local(x, p["local"], stride)
    if options.get("shared") == "conv_large":
        expected = expected + formulas.conv(x, p["shared"], stride=stride)
    elif options.get("shared", "gsi") is not None:
        expected = expected + shared(x, p["shared"], stride)
    formulas.check(layer, expected, x)


@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 2), (3, 1), (5, 2)])
def test_per_sample_convolution_gives_each_sample_its_own(kernel_size, stride):
    x, kernels = formulas.image(3, 5, 4, 2), formulas.image(3, kernel_size, kernel_size, 2, 6)
    y = per_sample_conv(jnp.asarray(x, jnp.float32), jnp.asarray(kernels, jnp.float32), stride=stride)
    for sample in range(3):
        expected = formulas.conv(x[[sample]], {"kernel": kernels[sample]}, stride=stride)
        np.testing.assert_allclose(y[sample], expected[0], atol=1e-4)


def test_per_sample_convolution_of_a_sharded_batch_needs_no_collective():
    mesh = jax.make_mesh((8,), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding) for shape in ((8, 5, 5, 4), (8, 3, 3, 4, 6))]

    def gradient(x, kernels):
        _, pull_back = jax.vjp(lambda x, kernels: (per_sample_conv(x, kernels) ** 2).sum((1, 2, 3)), x, kernels)
        return pull_back(jnp.ones(8))

    text = jax.jit(gradient).lower(*shapes).compile().as_text()
    assert "dot" in text
    assert not any(name in text for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"shared": "gsj"}, "`shared` must be 'gsi'"), ({"lsa": False, "shared": None}, "there would be no branch")],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DCDC(16, rngs=nnx.Rngs(0), **options)


def test_wrong_kernels_are_named():
    with pytest.raises(ValueError, match=r"must be \[B, K, K, C, D\]"):
        per_sample_conv(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 3, 3, 3, 2)))
