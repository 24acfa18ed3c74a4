"""The feature pyramid: its sums, its sizes, and the gradients of its upsamplers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import CARAFE, DDFUp, Nearest
from ddf_jax.models import FPN, get_config
from ddf_jax.models.resnet import FeatureInfo
from ddf_jax.models.slots import partial_layer
from tests.ddf_jax.layers import formulas

STAGES = FeatureInfo(3, 4), FeatureInfo(5, 8), FeatureInfo(2, 32)
SHAPES = (1, 9, 7, 3), (1, 5, 4, 5), (1, 2, 1, 2)  # of an image of 33×27 pixels


class OfMaps(nnx.Module):
    """One level of a pyramid as a function of its maps."""

    def __init__(self, fpn: FPN, level: int):
        self.fpn = fpn
        self.level = level

    def __call__(self, *features: jax.Array) -> jax.Array:
        return self.fpn(features)[self.level]


def test_a_level_is_the_convolved_sum_of_all_above_at_odd_sizes():
    fpn = formulas.drawn(lambda rngs: FPN(STAGES, channels=4, extra_levels=2, rngs=rngs))
    features = [formulas.image(*shape) for shape in SHAPES]
    p = formulas.parameters(fpn)
    maps = [formulas.linear(feature, p["laterals"][i]) for i, feature in enumerate(features)]
    maps[1] += maps[2].repeat(4, 1).repeat(4, 2)[:, :5, :4]
    maps[0] += maps[1].repeat(2, 1).repeat(2, 2)[:, :9, :7]
    expected = [formulas.conv(value, p["outputs"][i]) for i, value in enumerate(maps)]
    expected += [expected[2][:, ::2, ::2], expected[2][:, ::4, ::4]]
    assert fpn.feature_info == tuple(FeatureInfo(4, stride) for stride in (4, 8, 32, 64, 128))
    for level in (0, 4):
        formulas.check(OfMaps(fpn, level), expected[level], *features)


def test_every_parameter_gets_a_gradient_those_of_the_upsamplers_too():
    carafe = partial_layer(CARAFE, kernel_size=3, compressed_channels=2)
    fpn = formulas.drawn(lambda rngs: FPN(STAGES, channels=4, upsampler=carafe, rngs=rngs))
    features = [formulas.image(*shape).astype(np.float32) for shape in SHAPES]
    gradients = nnx.jit(nnx.grad(lambda fpn: sum((level**2).sum() for level in fpn(features))))(fpn)
    for path, gradient in nnx.to_flat_state(gradients):
        assert np.abs(gradient[...]).max() > 0, path


@pytest.mark.parametrize("size", [pytest.param((64, 96), marks=pytest.mark.slow), (97, 131)])
def test_a_resnet_gives_p2_to_p6_of_faster_r_cnn(size):
    def levels(image):
        backbone = get_config("resnet26", width=8, dtype=jnp.bfloat16).build(rngs=nnx.Rngs(0))
        backbone.eval()
        fpn = FPN(backbone.feature_info, upsampler=partial_layer(DDFUp), dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        assert [info.stride for info in fpn.feature_info] == [4, 8, 16, 32, 64]
        return fpn(backbone.features(image))

    got = jax.eval_shape(levels, jax.ShapeDtypeStruct((2, *size, 3), jnp.float32))
    for level, stride in zip(got, (4, 8, 16, 32, 64), strict=True):
        assert level.shape == (2, *(-(-length // stride) for length in size), 256)
        assert level.dtype == jnp.bfloat16


def test_the_default_upsampler_is_nearest():
    fpn = nnx.eval_shape(lambda: FPN(STAGES, rngs=nnx.Rngs(0)))
    assert [(type(up), up.scale) for up in fpn.upsamplers] == [(Nearest, 2), (Nearest, 4)]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (SHAPES[:2], r"must have \[3, 5, 2\] channels"),
        (((1, 9, 7, 3), (1, 4, 4, 5), (1, 2, 1, 2)), r"after \(1, 9, 7, 3\), .* must be \(5, 4\), got \(1, 4, 4, 5\)"),
    ],
)
def test_features_that_do_not_fit_are_named(shapes, message):
    features = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda features: FPN(STAGES, channels=4, rngs=nnx.Rngs(0))(features), features)


def test_strides_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match=r"multiple of the previous one, got \[4, 6\]"):
        FPN([FeatureInfo(3, 4), FeatureInfo(3, 6)], rngs=nnx.Rngs(0))


def test_there_may_be_no_extra_level_and_unknown_ones_are_named():
    def build(**options):
        return nnx.eval_shape(lambda: FPN(STAGES, channels=4, rngs=nnx.Rngs(0), **options))

    assert [info.stride for info in build(extra_levels=0).feature_info] == [4, 8, 32]
    with pytest.raises(ValueError, match="`extra_levels` must be an int ≥ 0, got -1"):
        build(extra_levels=-1)
    with pytest.raises(ValueError, match='`extra` must be "pool" or "convolution", got \'max\''):
        build(extra="max")
