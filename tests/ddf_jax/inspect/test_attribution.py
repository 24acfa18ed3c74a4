"""Activations of a network, their gradients, and maps from both."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.functional import per_sample_conv
from ddf_jax.inspect.attribution import compute_activations, find_layer, grad_cam, last_blocks, layer_shapes
from ddf_jax.inspect.filters import filter_generators
from ddf_jax.layers import DCDC
from ddf_jax.models import create
from tests.ddf_jax.layers import formulas

TINY = {"stem": "small", "width": 8, "blocks": (1, 1), "num_classes": 5, "in_channels": 1}
IMAGES = np.random.default_rng(0).normal(size=(2, 5, 7, 1)).astype(np.float32)


def tiny(name: str, **options: Any) -> Any:
    return formulas.drawn(lambda rngs: create(name, **TINY, **options, rngs=rngs))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_grad_cam_is_the_weighted_sum_of_channels_above_0(dtype):
    features, gradients = (jnp.asarray(np.random.default_rng(seed).normal(size=(2, 5, 3, 4)), dtype) for seed in (0, 1))
    cams = grad_cam(features, gradients)
    assert cams.dtype == jnp.float32
    for cam, of_image, slopes in zip(
        cams, np.asarray(features, np.float32), np.asarray(gradients, np.float32), strict=True
    ):
        expected = np.zeros((5, 3))
        for channel in range(4):
            expected += slopes[..., channel].sum() / 15 * of_image[..., channel]
        expected = np.maximum(expected, 0)
        np.testing.assert_allclose(cam, expected / expected.max(), atol=1e-5)


def test_grad_cam_without_a_positive_value_is_0():
    np.testing.assert_array_equal(grad_cam(jnp.ones((1, 2, 3, 4)), -jnp.ones((1, 2, 3, 4))), np.zeros((1, 2, 3)))


def test_gradients_are_those_of_each_images_largest_logit():
    model, images, names = tiny("resnet18"), jnp.asarray(IMAGES), ["stages.0.0", "stages.1.0"]
    activations = compute_activations(model, images, names, gradients=names)
    logits, features = nnx.jit(lambda model, images: (model(images), model.features(images)))(model, images)
    np.testing.assert_allclose(activations.logits, logits, rtol=1e-4, atol=1e-5)
    for output, expected in zip(activations.outputs.values(), features, strict=True):
        np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    best = np.asarray(logits).argmax(-1)

    # An average over 3×4 pixels and a linear layer follow the last stage.
    expected = np.asarray(model.head.kernel[...])[:, best].T[:, None, None] / 12
    np.testing.assert_allclose(activations.gradients["stages.1.0"], np.broadcast_to(expected, (2, 3, 4, 16)), rtol=1e-4)

    @nnx.jit
    def rest(model, features):
        return jax.grad(lambda x: model.head(model.stages[1][0](x).mean((1, 2)))[np.arange(2), best].sum())(features)

    np.testing.assert_allclose(activations.gradients["stages.0.0"], rest(model, features[0]), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "made"),
    [
        ("resnet18", {}, set()),
        ("ddf_resnet18", {}, {"conv1.spatial.spatial_branch", "conv2.spatial.channel_branch"}),
        ("rednet26", {"group_channels": 4}, {"conv2.spatial_branch"}),
        ("binet38", {"group_channels": 4, "static_groups": 4}, {"conv2.dynamic.spatial_branch"}),
        ("binet38_dc_ca", {}, {"conv2.dynamic.spatial_branch", "conv2.dynamic.channel_branch"}),
        ("dcdc_resnet26", {"group_channels": 4}, {"conv2.local.spatial_branch", "conv2.shared.inner.predict"}),
    ],
)
def test_generated_filters_are_found_in_the_network(name, options, made):
    model = nnx.eval_shape(lambda: create(name, **TINY, **options, rngs=nnx.Rngs(0)))
    model.eval()
    shapes = layer_shapes(model, IMAGES)
    found = filter_generators(shapes, "stages.1.0")
    assert {f"stages.1.0.{name}" for name in made} <= found.keys()
    assert bool(made) == bool(found)
    for maker, kind in found.items():
        shape = shapes[maker]
        assert shape[:3] == {"spatial_filters": (2, 3, 4), "channel_filters": (2, 9, shape[2])}.get(kind, (2, 1, 1))
        assert filter_generators(shapes, maker) == {maker: kind}
    assert not filter_generators(shapes, "stages.1.0.norm1")
    assert last_blocks(model) == ["stages.0.0", "stages.1.0"]


class Averaged(nnx.Module):
    """Logits of a layer alone."""

    def __init__(self, layer: nnx.Module):
        self.layer: Any = layer

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layer(x).mean((1, 2))


def test_captured_kernels_are_those_of_the_convolution():
    model = formulas.drawn(
        lambda rngs: Averaged(DCDC(8, lsa=False, shared_kernel_size=3, dtype=jnp.bfloat16, rngs=rngs))
    )
    names = ["layer.shared.norm", "layer.shared.inner", "layer.shared.inner.predict"]
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 7, 8)), jnp.bfloat16)
    activations = compute_activations(model, x, names)
    normalized, convolved, kernels = (activations.outputs[name] for name in names)
    assert kernels.shape == (2, 3, 3, 2, 2)
    expected = jax.jit(per_sample_conv)(np.maximum(normalized, 0), kernels)
    np.testing.assert_allclose(*(np.asarray(x).astype(np.float32) for x in (convolved, expected)), rtol=0.02, atol=0.02)


def test_an_unknown_layer_names_the_nearest():
    with pytest.raises(ValueError, match=r"got 'stages.0.conv2'. Nearest: stages.0.0.conv2, "):
        find_layer({"stem": (), "stages.0.0.conv2": (), "stages.0.0.conv1": (), "head": ()}, "stages.0.conv2")


def test_a_network_without_stages_is_refused():
    with pytest.raises(ValueError, match=r"must have stages, .* got a Linear"):
        last_blocks(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
