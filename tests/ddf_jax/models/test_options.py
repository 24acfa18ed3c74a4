"""Options of registered models: of any number type, and never ignored."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import Conv, SelfAttention
from ddf_jax.models import create, get_config
from tests.ddf_jax.models.small import abstract_model


def test_integers_of_numpy_are_options_like_any():
    def config(two, eight):
        return get_config(
            "rednet50", blocks=(two, two), width=eight * two, num_classes=two, group_channels=eight // two
        )

    ours, numpy = config(2, 8), config(np.int64(2), np.int64(8))
    assert ours == numpy
    assert nnx.graphdef(abstract_model(ours)) == nnx.graphdef(nnx.eval_shape(lambda: numpy.build(rngs=nnx.Rngs(0))))
    depth = get_config("ddf_up_net", scale=np.int64(4))
    assert nnx.eval_shape(lambda: depth.build(rngs=nnx.Rngs(0))).config == get_config("ddf_up_net", scale=4)


def test_typos_name_the_nearest():
    with pytest.raises(ValueError, match=r"no model named 'ddf_resnet5'.*'ddf_resnet50'"):
        create("ddf_resnet5", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"no option 'squeeze_rato'.*'squeeze_ratio'"):
        create("ddf_resnet50", squeeze_rato=0.3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="`stem` must be"):
        create("resnet50", stem="tiny", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="`stride_in` must be conv1 or conv2, got 'conv3'"):
        create("resnet50", stride_in="conv3", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"C = 3, got \(1, 8, 8, 1\)"):
        nnx.eval_shape(lambda: create("resnet18", width=8, rngs=nnx.Rngs(0))(jnp.zeros((1, 8, 8, 1))))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"pointwise_op": Conv}),
        ("resnet18", {"inner_ratio": 2.0}),
        ("resnet18", {"stride_in": "conv1"}),
        ("res2net50_26w_4s", {"stride_in": "conv1"}),
        ("res2net50_26w_4s", {"inner_ratio": 2.0}),
        ("axial_resnet_s", {"stride_in": "conv1"}),
        ("axial_resnet_s", {"spatial_op": SelfAttention}),
        ("axial_resnet_s", {"pointwise_op": Conv}),
        ("dynet18", {"spatial_op": SelfAttention}),
        ("dynet18", {"stride_in": "conv1"}),
        ("dynet50", {"pointwise_op": Conv}),
        ("dynet50", {"inner_ratio": 2.0}),
        ("odconv_resnet50", {"block": "basic"}),
    ],
    ids=str,
)
def test_an_option_that_the_blocks_do_not_have_is_refused(name, options):
    with pytest.raises(ValueError, match=r"Blocks of the kind '\w+' have no `\w+`: leave it out, got"):
        get_config(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("resnet50", {"stem_op": SelfAttention}, "stem_op"),
        ("sasa_resnet26", {"stem": "conv", "stem_op": SelfAttention}, "stem_op"),
        ("axial_resnet_s", {"stem": "axial", "image_size": 64}, "image_size"),
        ("san10", {"kernel_size": 3, "spatial_op": SelfAttention}, "kernel_size"),
        ("lrnet26", {"kernel_size": 3, "spatial_op": Conv, "stem": "small", "stem_op": Conv}, "kernel_size"),
        ("ddf_up_net", {"layout": "filters", "heads": 2}, "heads"),
    ],
    ids=str,
)
def test_an_option_that_another_one_overrides_is_refused(name, options, key):
    with pytest.raises(ValueError, match=rf"`{key}` has no effect on '{name}' with its other options"):
        get_config(name, **options)


def test_an_option_that_another_one_needs_has_an_effect():
    assert get_config("ddf_up_net", layout="filters", kind="pixel_adaptive").kind == "pixel_adaptive"


def test_the_axial_stem_has_the_options_of_the_blocks():
    block = abstract_model(get_config("axial_resnet_s", stem="axial", heads=4, blocks=(1,))).stem.blocks[0]
    assert (block.height.heads, block.width.heads, block.height.span) == (4, 4, 15)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet50", {"blocks": ()}, r"`blocks` must be numbers of blocks, 1 or more for each stage, got \(\)"),
        ("nat_mini", {"blocks": (1, 0)}, r"`blocks` must be numbers of blocks, 1 or more for each stage, got \(1, 0\)"),
        ("nat_mini", {"kernel_size": 4}, "`kernel_size` must be odd, got 4"),
        ("nat_mini", {"head_channels": 0}, "`head_channels` must divide `width` = 64, got 0"),
        ("san10", {"blocks": (1, -1)}, r"`blocks` must be numbers of blocks, 1 or more for each stage, got \(1, -1\)"),
        ("san10", {"stem_blocks": 0}, "`stem_blocks` must be at least 1, got 0"),
        ("sasa_resnet26", {"stem": "tiny"}, "`stem` must be one of attention, conv, .*, got 'tiny'"),
        ("djf_plus", {"widths": (1, 2)}, r"`widths` must be 3 numbers of channels, each at least 1, got \(1, 2\)"),
        ("djf", {"joint_widths": (8, 0)}, r"`joint_widths` must be 2 numbers of channels, .* got \(8, 0\)"),
    ],
    ids=str,
)
def test_sizes_of_no_network_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        get_config(name, **options)
