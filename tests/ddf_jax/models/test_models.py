"""All registered models: pinned names, forward passes, features, and a gradient for each parameter."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.analysis.comparison import count
from ddf_jax.models import abstract, get_config, list_models
from ddf_jax.models.nat import PooledLinear
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.san import SANConfig
from tests.ddf_jax.models.pinned import PARAMETERS
from tests.ddf_jax.models.small import DISTINCT, WITHOUT_EFFECT, abstract_model, drawn, shallow


def test_every_registered_model_is_pinned():
    assert set(list_models(task="classification")) == set(PARAMETERS)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("resnet101", "ddf_resnet38") else pytest.mark.slow)
        for name in PARAMETERS
    ],
)
def test_parameters_of_the_whole_model_are_as_many_as_counted(name):
    state = nnx.state(abstract(name), nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == PARAMETERS[name]


def test_squeeze_ratios_of_the_paper_count_as_published():
    for ratio, millions in ((0.3, 18.1), (0.4, 19.4)):
        params = count("ddf_resnet50", (("squeeze_ratio", ratio),)).params
        assert round(params / 1e6, 1) in (millions, round(millions - 0.1, 1)), params


def gradients_of(config: Any) -> dict[tuple, np.ndarray]:
    structure, parameters, rest = drawn(config)
    images = np.random.default_rng(1).normal(size=(2, 37, 45, 3)).astype(np.float32)

    def loss(parameters, rest, images):
        model = nnx.merge(structure, parameters, rest, copy=True)
        model.eval()  # in training the gradient of a bias is 0 where batch normalisation follows
        logits = model(images)
        return (logits * jnp.arange(1.0, 11.0).reshape(2, 5)).sum()

    arguments = parameters, rest, images
    gradients = jax.jit(jax.grad(loss))(*arguments)
    return {path: np.asarray(gradient[...]) for path, gradient in nnx.to_flat_state(gradients)}


# One network for each way to build a network of blocks and stages. The others are the same with another layer.
WIRINGS = ("resnet18", "res2net101_26w_4s", "se_resnet101", "bam_resnet101", "aa_resnet101")
# One for each layer that has no gradient test of its own; here it is in a single block. (The binet101 of "dc" has the
# operator of binet101_dc_ca with the filters of rednet101.)
LAYERS = (
    "rednet101",
    "dcdc_resnet101",
    "binet101_dc_ca",
    "eca_resnet101",
    "cbam_resnet101",
    "condconv_resnet50",
    "dynamicconv_resnet50",
    "dwweightnet_resnet50",
    "odconv_resnet50",
    "dcd_resnet50",
    "dynet50",
    "axial_resnet_s",
    "sasa_resnet26",
    "lrnet101",
    "nat_mini",
    "san10",
    "san10_patchwise",
)
IN_STEM = ("rednet101", "dcdc_resnet101", "binet101_dc_ca")  # there it would be compiled a second time


def test_every_wiring_and_every_layer_is_there():
    assert {*WIRINGS, *LAYERS} <= set(DISTINCT)


@pytest.mark.parametrize(
    ("name", "options"),
    [pytest.param(name, {}, marks=() if name in WIRINGS else pytest.mark.slow) for name in DISTINCT]
    + [(name, {"blocks": (1,), **({"stem": "small"} if name in IN_STEM else {})}) for name in LAYERS],
    ids=str,
)
def test_every_parameter_gets_a_gradient_from_an_odd_sized_image(name, options):
    for path, gradient in gradients_of(shallow(name, **options)).items():
        assert np.isfinite(gradient).all(), path
        without_effect = ".".join(map(str, path)).endswith(WITHOUT_EFFECT.get(name, ()))
        assert without_effect or np.abs(gradient).max() > 0, path


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in (*WIRINGS, *LAYERS, "ddf_resnet101") else pytest.mark.slow)
        for name in DISTINCT
    ],
)
def test_features_have_the_announced_channels_and_strides_in_the_compute_dtype(name):
    check_features(shallow(name, dtype=jnp.bfloat16))


@pytest.mark.parametrize("stem", ["imagenet", "deep", "small"])
def test_features_of_four_stages_behind_every_stem(stem):
    check_features(shallow("resnet26", stem=stem, blocks=(1, 1, 1, 1), dtype=jnp.bfloat16))


@pytest.mark.parametrize(("name", "options"), [("axial_resnet_s", {"stem": "axial", "width": 16}), ("dynet18", {})])
def test_features_behind_the_stems_of_one_family(name, options):
    check_features(shallow(name, dtype=jnp.bfloat16, **options))


def check_features(config: Any) -> None:
    def side(length: int, stride: int) -> int:
        return length // stride if isinstance(config, SANConfig) else -(-length // stride)

    model = abstract_model(config)
    features, logits = nnx.eval_shape(lambda model: evaluated(model, jnp.zeros((1, 50, 67, 3))), model)
    assert len(features) == len(model.feature_info) == len(config.blocks)
    for feature, info in zip(features, model.feature_info, strict=True):
        assert feature.shape == (1, side(50, info.stride), side(67, info.stride), info.channels)
    assert {value.dtype for value in (*features, logits)} == {jnp.dtype("bfloat16")}


def evaluated(model, images):
    model.eval()
    features = model.features(images)
    pooled = isinstance(model.head, PooledLinear)
    return features, model.head(features[-1] if pooled else features[-1].mean((1, 2)))


def test_a_layer_that_mixes_no_channels_keeps_their_number():
    with pytest.raises(ValueError, match=r"got 8 and 16\. Use ChannelwiseOp\(…, mix=True\)"):
        abstract_model(get_config("dwweightnet_resnet50", block="basic", blocks=(1, 1), width=8))


def test_a_slot_takes_one_operator_for_each_stage():
    config = get_config("aa_resnet50", width=8, blocks=(1, 1, 1, 1, 1))
    kinds = [type(stage[0].conv2).__name__ for stage in abstract_model(config).stages]
    assert kinds == ["Conv", *["AttentionAugmentedConv"] * 4]
    config = get_config("fca_resnet50", width=8, blocks=(1, 1, 1, 1, 1))
    assert [stage[0].attention.size for stage in abstract_model(config).stages] == [56, 28, 14, 7, 7]


def test_a_bottleneck_may_have_its_stride_in_its_first_convolution():
    for place, strides in (("conv1", (2, 1)), ("conv2", (1, 2))):
        block = abstract_model(get_config("odconv_resnet50", width=8, blocks=(1, 1), stride_in=place)).stages[1][0]
        assert (block.conv1.stride, block.conv2.stride) == strides


def test_configurations_of_the_same_layers_are_equal():
    assert get_config("binet50") == get_config("binet50")
    assert get_config("rednet50", blocks=(1,)) == get_config("rednet26", blocks=(1,))
    assert get_config("rednet50") != get_config("binet50")


def test_bfloat16_model_keeps_float32_parameters_and_is_close():
    images = np.random.default_rng(1).normal(size=(2, 33, 33, 3)).astype(np.float32)
    logits = {}
    for dtype in (jnp.bfloat16, jnp.float32):
        structure, parameters, rest = drawn(shallow("ddf_resnet26", blocks=(1, 1), dtype=dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves((parameters, rest))} == {np.dtype(np.float32)}

        def evaluate(parameters, rest, images, structure=structure):
            model = nnx.merge(structure, parameters, rest, copy=True)
            model.eval()
            return model(images)

        logits[dtype] = jax.jit(evaluate)(parameters, rest, images)
    assert logits[jnp.bfloat16].dtype == jnp.bfloat16
    exact = np.asarray(logits[jnp.float32])
    np.testing.assert_allclose(logits[jnp.bfloat16].astype(jnp.float32), exact, atol=0.1 * np.abs(exact).max())


def test_zero_initialised_last_scale_makes_a_block_its_shortcut():
    config = ResNetConfig(blocks=(2,), width=8, stem="small", zero_init_last_norm=True)
    stage = nnx.jit(lambda: config.build(rngs=nnx.Rngs(0)))().stages[0]
    assert not any(np.any(block.norm3.scale[...]) for block in stage)
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 32)).astype(np.float32)
    np.testing.assert_array_equal(nnx.jit(lambda block, x: block(x))(stage[1], x), np.maximum(x, 0))


def test_stochastic_depth_drops_whole_samples_in_training_only():
    config = ResNetConfig(block="basic", blocks=(3, 2), width=4, stem="small", num_classes=2, stochastic_depth=0.5)
    blocks = [block for stage in abstract_model(config).stages for block in stage]
    rates = [block.drop.rate for block in blocks if isinstance(block.drop, nnx.Dropout)]
    np.testing.assert_allclose(rates, [0.5 * i / 4 for i in range(1, 5)])
    model = nnx.jit(lambda: dataclasses.replace(config, blocks=(1, 1)).build(rngs=nnx.Rngs(0)))()
    apply = nnx.jit(lambda module, x: module(x))
    per_sample = np.asarray(apply(model.stages[-1][-1].drop, np.ones((64, 3, 3, 4), np.float32))).reshape(64, -1)
    assert (per_sample == per_sample[:, :1]).all()
    assert 10 < (per_sample[:, 0] == 0).sum() < 54
    model.eval()
    images = np.random.default_rng(0).normal(size=(2, 9, 9, 3)).astype(np.float32)
    np.testing.assert_array_equal(apply(model, images), apply(model, images))


def test_names_are_matched_like_file_names():
    assert list_models("ddf_add_*") == ["ddf_add_resnet101", "ddf_add_resnet152", "ddf_add_resnet50"]
    assert list_models("nothing*") == []


def test_a_name_registers_once():
    def resnet50():
        raise AssertionError

    with pytest.raises(ValueError, match="registered already"):
        register(resnet50)
