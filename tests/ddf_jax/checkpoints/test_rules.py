"""Each name of each model has one rule, and the two directions are inverse."""

import functools
import zlib

import numpy as np
import pytest
from flax import nnx

from ddf_jax import layers, models
from ddf_jax.checkpoints.conversion import expected_shapes
from ddf_jax.checkpoints.layouts import is_buffer
from ddf_jax.checkpoints.names import RULES
from ddf_jax.checkpoints.rules import naming_of, translate, translate_name
from ddf_jax.models.resnet import FeatureInfo
from ddf_jax.models.slots import ChannelwiseOp, partial_layer
from tests.ddf_jax.models.small import DISTINCT

FAMILIES = (
    "resnet*",
    "ddf_*",
    "rednet*",
    "se_*",
    "eca_*",
    "resnext*",
    "res2net*",
    "fca_*",
    "odconv_*",
    "dcd_*",
    "axial_*",
    "san*",
)
NAMES = [name for family in FAMILIES for name in models.list_models(family, task="classification")]
TRANSFORMERS = ("nat_mini",)  # no backbones of detectors


# Layers that are part of no registered model.
INVOLUTION = ChannelwiseOp(partial_layer(layers.Involution))
LAYERS = {
    "ddf_up": lambda rngs: layers.DDFUp(8, scale=3, heads=2, rngs=rngs),
    "ddf_up_guided": lambda rngs: layers.DDFUp(8, guidance_channels=3, rngs=rngs),
    "carafe": lambda rngs: layers.CARAFE(8, rngs=rngs),
    "fpn": lambda rngs: models.FPN([FeatureInfo(5, 4)], channels=16, op=INVOLUTION, extra="convolution", rngs=rngs),
}


SHORT = {"width": 32, "num_classes": 7, "blocks": (2, 1)}

# CRC-32 of the lines "name shape" of MMDetection 3.3.0's state dict, and its entries.
MMDETECTION = {
    "retinanet": (3553811182, 354),
    "faster_rcnn": (3643920793, 348),
    "mask_rcnn": (15483552, 360),
    "htc": (329870743, 426),
    "panoptic_fpn": (787551569, 383),
}
LEAST = {"channels": 32, "num_classes": 7, "backbone_options": {"width": 32, "blocks": (2, 1, 1, 1)}}
INVOLUTIONS = {"neck": "involution", "head": "involution"}
DETECTORS = {
    **{family: (f"{family}_resnet50", LEAST) for family in MMDETECTION},
    "involutions": ("mask_rcnn_rednet50", {**LEAST, **INVOLUTIONS}),
    "cascade of involutions": ("htc_rednet50", {**LEAST, **INVOLUTIONS}),
}


# There and back from official names goes through both translations, as from ours.
SOURCES = ("official", pytest.param("own", marks=pytest.mark.slow))


@functools.cache
def built(config):
    return nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))


@functools.cache
def layer(name):
    return nnx.eval_shape(lambda: LAYERS[name](nnx.Rngs(0)))


@functools.cache
def detector(key):
    name, options = DETECTORS[key]
    config = models.get_config(name, **options)
    return nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))


def with_backbone(name):
    """RetinaNet on the classifier of this name, with two stages."""
    options = {"channels": 16, "num_classes": 7, "head_depth": 1, "backbone_options": {"width": 32, "blocks": (2, 1)}}
    config = models.get_config("retinanet_resnet50", backbone=name, **options)
    return nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))


def abstract(name, **options):
    return layer(name) if name in LAYERS else built(models.get_config(name, **options))


def numbered(shapes):
    """Tensors with pairwise different elements."""
    tensors, first = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        tensors[name] = np.arange(first, first + size).reshape(shape)
        first += size
    return tensors


@pytest.mark.parametrize(
    ("name", "options"),
    # The blocks of the last have numbers of two digits.
    [*((name, SHORT) for name in DISTINCT if name in (*NAMES, *TRANSFORMERS)), ("resnet18", {"blocks": (1, 11)})],
    ids=str,
)
def test_every_name_has_one_counterpart(name, options):
    check_names(abstract(name, **options))


@pytest.mark.parametrize("key", DETECTORS)
def test_every_name_of_a_detector_has_one_counterpart(key):
    check_names(detector(key))


def check_names(model):
    own, official = expected_shapes(model, "own"), expected_shapes(model, "official")
    buffers = [key for key in official if is_buffer(key)]
    assert naming_of(own) == "own"
    assert naming_of(official) == "official"
    assert {translate_name(key, "own", own) for key in own} == official.keys() - set(buffers)
    assert {translate_name(key, "official", official) for key in official} - {
        translate_name(key, "official", official) for key in buffers
    } == own.keys()


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=pytest.mark.slow if family in ("faster_rcnn", "mask_rcnn") else ())
        for family in MMDETECTION  # the others have all of their parts
    ],
)
def test_names_and_shapes_are_those_of_mmdetection(family):
    official = expected_shapes(models.abstract(f"{family}_resnet50"), "official")
    lines = "\n".join(f"{name} {list(shape)}" for name, shape in sorted(official.items()))
    assert (zlib.crc32(lines.encode()), len(official)) == MMDETECTION[family]


def test_involutions_of_a_detector_have_the_names_of_their_repository():
    shapes = expected_shapes(detector("involutions"), "official")
    involution = {
        "conv1.conv.weight": (8, 32, 1, 1),
        **{f"conv1.bn.{name}": (8,) for name in ("weight", "bias", "running_mean", "running_var")},
        "conv1.bn.num_batches_tracked": (),
        "conv2.conv.weight": (98, 8, 1, 1),
        "conv2.conv.bias": (98,),
    }
    places = ["rpn_head.rpn_conv", *(f"neck.fpn_convs.{n}" for n in range(4))]
    places += [f"roi_head.mask_head.convs.{n}.0" for n in range(4)]
    expected = {f"{place}.{name}": shape for place in places for name, shape in involution.items()}
    assert {name: shapes[name] for name in shapes if name.startswith((*places, "roi_head.mask_head.convs"))} == expected


def test_a_transformer_has_the_names_of_its_repository():
    shapes = expected_shapes(abstract("nat_mini", **SHORT), "official")
    block = {
        **{f"{name}.{kind}": (32,) for name in ("norm1", "norm2") for kind in ("weight", "bias")},
        "attn.qkv.weight": (96, 32),
        "attn.qkv.bias": (96,),
        "attn.rpb": (1, 13, 13),
        "attn.proj.weight": (32, 32),
        "attn.proj.bias": (32,),
        "mlp.fc1.weight": (96, 32),
        "mlp.fc1.bias": (96,),
        "mlp.fc2.weight": (32, 96),
        "mlp.fc2.bias": (32,),
    }
    first = {f"levels.0.blocks.{n}.{name}": shape for n in range(2) for name, shape in block.items()}
    rest = {
        "patch_embed.proj.0.weight": (16, 3, 3, 3),
        "patch_embed.proj.0.bias": (16,),
        "patch_embed.proj.1.weight": (32, 16, 3, 3),
        "patch_embed.proj.1.bias": (32,),
        **{f"patch_embed.norm.{kind}": (32,) for kind in ("weight", "bias")},
        "levels.0.downsample.reduction.weight": (64, 32, 3, 3),
        **{f"{name}.{kind}": (64,) for name in ("levels.0.downsample.norm", "norm") for kind in ("weight", "bias")},
        "head.weight": (7, 64),
        "head.bias": (7,),
    }
    assert {name: shapes[name] for name in shapes if not name.startswith("levels.1.")} == {**first, **rest}


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("ddf_resnet50", 416),
        pytest.param("ddf_add_resnet50", 416, marks=pytest.mark.slow),
        pytest.param("ddf_resnet101", 824, marks=pytest.mark.slow),
        pytest.param("resnet50", 320, marks=pytest.mark.slow),
        pytest.param("rednet50", 451, marks=pytest.mark.slow),
        pytest.param("se_resnet50", 384, marks=pytest.mark.slow),
        pytest.param("eca_resnet50", 336, marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", 320, marks=pytest.mark.slow),
        pytest.param("res2net50_26w_4s", 512, marks=pytest.mark.slow),
        ("fca_resnet50", 368),
        pytest.param("fca_resnet101", 725, marks=pytest.mark.slow),
        pytest.param("odconv_resnet50", 832, marks=pytest.mark.slow),
        pytest.param("dcd_resnet50", 1104, marks=pytest.mark.slow),
        pytest.param("axial_resnet_s", 800, marks=pytest.mark.slow),
        ("nat_mini", 253),
        ("san10", 368),
        pytest.param("san10_patchwise", 348, marks=pytest.mark.slow),
    ],
)
def test_official_entries_are_as_many_as_counted(name, entries):
    assert len(expected_shapes(abstract(name), "official")) == entries


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet26",
        "ddf_resnet18",
        "ddf_resnet26",
        "ddf_batchnorm_resnet50",
        "rednet26",
        "se_resnet50",
        "eca_resnet50",
        "resnext50_32x4d",
        "res2net50_26w_4s",
        "fca_resnet50",
        "odconv_resnet50",
        "odconv_resnet50_4x",
        "dcd_resnet50",
        "axial_resnet_s",
        "nat_mini",
        "san10",
        "san10_patchwise",
    ],
)
@pytest.mark.parametrize("source", SOURCES)
def test_there_and_back_is_the_identity(name, source):
    check_there_and_back(abstract(name, **SHORT), source)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("source", SOURCES)
def test_there_and_back_is_the_identity_of_upsamplers(name, source):
    check_there_and_back(abstract(name), source)


@pytest.mark.parametrize("key", DETECTORS)
@pytest.mark.parametrize("source", SOURCES)
def test_there_and_back_is_the_identity_of_detectors(key, source):
    check_there_and_back(detector(key), source)


def check_there_and_back(model, source):
    tensors = numbered(expected_shapes(model, source))
    there = translate(tensors, source)
    back = translate(there, "own" if source == "official" else "official")
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[key], tensors[key]) for key in tensors)
    seen = np.concatenate([value.reshape(-1) for value in there.values()])
    assert np.array_equal(np.sort(seen), np.arange(seen.size))


def test_every_rule_is_used():
    names = [name for name in DISTINCT if name in NAMES]
    models = [abstract(name, **SHORT) for name in (*names, *TRANSFORMERS)] + [
        *map(abstract, LAYERS),
        *map(detector, DETECTORS),
    ]
    used = set()
    for model in models + [with_backbone(name) for name in names]:
        used |= {name.translate(str.maketrans("", "", "0123456789")) for name in expected_shapes(model, "own")}
    digits_dropped = [rule.own.translate(str.maketrans("", "", "0123456789")) for rule in RULES]
    fields_dropped = [
        own.replace("{stage}", "").replace("{block}", "").replace("{n}", "").replace("{m}", "")
        for own in digits_dropped
    ]
    assert {own for own in fields_dropped if not is_buffer(own)} == used
