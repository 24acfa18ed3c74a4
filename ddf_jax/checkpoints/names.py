"""Official names of tensors and ours, as rules.

Official names are timm's for ResNets, SE, ECA, ResNeXts and Res2Nets, theFoxofSky/ddfnet's for DDF and DDF-Up, mmcv's
for CARAFE, d-li14/involution's for RedNets, cfzd/FcaNet's, OSVAI/ODConv's, liyunsheng13/dcd's and
csrhddlam/axial-deeplab's for theirs, hszhao/SAN's (`san_names`), SHI-Labs' for NAT (`nat_names`), and MMDetection's for
detectors and feature pyramids, without what frameworks put around a module (`wrappers`); ours are the paths of the
variables in the Flax modules, joined by dots.
"""

import dataclasses

from ddf_jax.checkpoints.layouts import (
    BINS_LINEAR,
    CONV,
    CONV1D,
    FREQUENCY_TABLE,
    LINEAR,
    POINTWISE1D,
    POSITION_INDEX,
    TAPS_BIAS,
    TAPS_SCALE,
    TAPS_WEIGHT,
    TRANSPOSED,
    Rule,
    TensorLayout,
    conv,
    input_channels,
    norm,
)
from ddf_jax.checkpoints.nat_names import NAT
from ddf_jax.checkpoints.san_names import SAN


def _ddf(official: str, own: str) -> list[Rule]:
    return [
        *conv(f"{official}.spatial_branch.0", f"{own}.spatial_branch.conv"),
        *_channel_branch(f"{official}.channel_branch", f"{own}.channel_branch"),
    ]


def _channel_branch(official: str, own: str) -> list[Rule]:
    channels = input_channels(f"{official}.1.weight", f"{own}.squeeze.kernel")
    return [
        *conv(f"{official}.1", f"{own}.squeeze"),
        Rule(f"{official}.3.weight", f"{own}.excite.kernel", TAPS_WEIGHT, channels),
        Rule(f"{official}.3.bias", f"{own}.excite.bias", TAPS_BIAS, channels),
        Rule(f"{official}.4.std", f"{own}.norm.scale", TAPS_SCALE, channels),
    ]


def _ddf_batchnorm(official: str, own: str) -> list[Rule]:
    """The ablation's batch normalisation in place of filter normalisation. No official names exist."""
    channels = input_channels(f"{official}.channel_branch.1.weight", f"{own}.channel_branch.squeeze.kernel")
    return [
        *norm(f"{official}.spatial_branch.1", f"{own}.spatial_branch.norm.norm"),
        *norm(f"{official}.channel_branch.4", f"{own}.channel_branch.norm.norm", TAPS_BIAS, channels),
    ]


def _involution(official: str, own: str) -> list[Rule]:
    return [
        Rule(f"{official}.conv1.conv.weight", f"{own}.spatial_branch.reduce.kernel", CONV),
        *norm(f"{official}.conv1.bn", f"{own}.spatial_branch.norm"),
        Rule(f"{official}.conv2.conv.weight", f"{own}.spatial_branch.span.kernel", CONV),
        Rule(f"{official}.conv2.conv.bias", f"{own}.spatial_branch.span.bias"),
    ]


def _squeeze_excitation(official: str, own: str) -> list[Rule]:
    return [
        Rule(f"{official}.fc1.weight", f"{own}.squeeze.kernel", CONV),
        Rule(f"{official}.fc1.bias", f"{own}.squeeze.bias"),
        Rule(f"{official}.fc2.weight", f"{own}.excite.kernel", CONV),
        Rule(f"{official}.fc2.bias", f"{own}.excite.bias"),
    ]


def _odconv(official: str, own: str) -> list[Rule]:
    heads = (("channel", "inputs"), ("filter", "outputs"), ("spatial", "taps"), ("kernel", "kernels"))
    return [
        Rule(f"{official}.fc.weight", f"{own}.squeeze.kernel", CONV),
        *norm(f"{official}.bn", f"{own}.norm"),
        *(rule for theirs, ours in heads for rule in conv(f"{official}.{theirs}_fc", f"{own}.{ours}")),
    ]


def _dcd(official: str, own: str, *, prefix: str = "", layout: TensorLayout = CONV) -> list[Rule]:
    return [
        Rule(f"{official}.{prefix}q.weight", f"{own}.project.kernel", layout),
        Rule(f"{official}.{prefix}p.weight", f"{own}.restore.kernel", layout),
        *norm(f"{official}.bn1", f"{own}.norm1"),
        *norm(f"{official}.bn2", f"{own}.norm2"),
        Rule(f"{official}.fc.0.weight", f"{own}.coefficients.squeeze.kernel", LINEAR),
        Rule(f"{official}.fc.1.fc.0.weight", f"{own}.coefficients.gate.kernel", LINEAR),
        Rule(f"{official}.fc_phi.weight", f"{own}.coefficients.matrix.kernel", LINEAR),
        Rule(f"{official}.fc_scale.weight", f"{own}.coefficients.scale.kernel", LINEAR),
    ]


def _axial_attention(official: str, own: str) -> list[Rule]:
    return [
        Rule(f"{official}.qkv_transform.weight", f"{own}.project.kernel", POINTWISE1D),
        *norm(f"{official}.bn_qkv", f"{own}.project_norm"),
        *norm(f"{official}.bn_similarity", f"{own}.logits_norm"),
        *norm(f"{official}.bn_output", f"{own}.output_norm"),
        Rule(f"{official}.relative", f"{own}.relative", LINEAR),
        Rule(f"{official}.{POSITION_INDEX}", f"{own}.{POSITION_INDEX}"),
    ]


_OFFICIAL_BLOCK, _OWN_BLOCK = "layer{stage}.{block}", "stages.{stage}.{block}"

BACKBONE = (
    Rule("conv1.weight", "stem.conv.kernel", CONV),
    *norm("bn1", "stem.norm"),
    Rule(f"{_OFFICIAL_BLOCK}.conv{{n}}.weight", f"{_OWN_BLOCK}.conv{{n}}.kernel", CONV),
    *norm(f"{_OFFICIAL_BLOCK}.bn{{n}}", f"{_OWN_BLOCK}.norm{{n}}"),
    Rule(f"{_OFFICIAL_BLOCK}.downsample.0.weight", f"{_OWN_BLOCK}.shortcut.conv.kernel", CONV),
    *norm(f"{_OFFICIAL_BLOCK}.downsample.1", f"{_OWN_BLOCK}.shortcut.norm"),
    *_ddf(f"{_OFFICIAL_BLOCK}.conv{{n}}", f"{_OWN_BLOCK}.conv{{n}}"),
    *_ddf_batchnorm(f"{_OFFICIAL_BLOCK}.conv{{n}}", f"{_OWN_BLOCK}.conv{{n}}"),
    *_squeeze_excitation(f"{_OFFICIAL_BLOCK}.se", f"{_OWN_BLOCK}.attention"),
    Rule(f"{_OFFICIAL_BLOCK}.se.conv.weight", f"{_OWN_BLOCK}.attention.conv.kernel", CONV1D),
    Rule(f"{_OFFICIAL_BLOCK}.att.fc.0.weight", f"{_OWN_BLOCK}.attention.hidden.kernel", LINEAR),
    Rule(f"{_OFFICIAL_BLOCK}.att.fc.2.weight", f"{_OWN_BLOCK}.attention.gate.kernel", LINEAR),
    Rule(f"{_OFFICIAL_BLOCK}.att.{FREQUENCY_TABLE}", f"{_OWN_BLOCK}.attention.{FREQUENCY_TABLE}"),
    *_odconv(f"{_OFFICIAL_BLOCK}.conv{{n}}.attention", f"{_OWN_BLOCK}.conv{{n}}.attention"),
    Rule(f"{_OFFICIAL_BLOCK}.conv{{n}}.conv.weight", f"{_OWN_BLOCK}.conv{{n}}.conv.kernel", CONV),
    *_dcd(f"{_OFFICIAL_BLOCK}.conv{{n}}", f"{_OWN_BLOCK}.conv{{n}}"),
    Rule(f"{_OFFICIAL_BLOCK}.conv_down.weight", f"{_OWN_BLOCK}.down.kernel", CONV),
    Rule(f"{_OFFICIAL_BLOCK}.conv_up.weight", f"{_OWN_BLOCK}.up.kernel", CONV),
    *_axial_attention(f"{_OFFICIAL_BLOCK}.hight_block", f"{_OWN_BLOCK}.height"),
    *_axial_attention(f"{_OFFICIAL_BLOCK}.width_block", f"{_OWN_BLOCK}.width"),
    Rule(f"{_OFFICIAL_BLOCK}.convs.{{n}}.weight", f"{_OWN_BLOCK}.convs.{{n}}.kernel", CONV),
    *norm(f"{_OFFICIAL_BLOCK}.bns.{{n}}", f"{_OWN_BLOCK}.norms.{{n}}"),
    *_involution(f"{_OFFICIAL_BLOCK}.conv{{n}}", f"{_OWN_BLOCK}.conv{{n}}"),
    Rule("stem.0.conv.weight", "stem.conv1.kernel", CONV),
    *norm("stem.0.bn", "stem.norm1"),
    *_involution("stem.1", "stem.conv2"),
    *norm("stem.2", "stem.norm2"),
    Rule("stem.4.conv.weight", "stem.conv3.kernel", CONV),
    *norm("stem.4.bn", "stem.norm3"),
    # DDF in a basic block: no official names exist, these are the port's (`ddf_jax.torch_port.resnet`).
    *_ddf(f"{_OFFICIAL_BLOCK}.conv{{n}}.ddf", f"{_OWN_BLOCK}.conv{{n}}.spatial"),
    *norm(f"{_OFFICIAL_BLOCK}.conv{{n}}.bn", f"{_OWN_BLOCK}.conv{{n}}.norm"),
    Rule(f"{_OFFICIAL_BLOCK}.conv{{n}}.pointwise.weight", f"{_OWN_BLOCK}.conv{{n}}.pointwise.kernel", CONV),
    *SAN,
)

# With MMDetection's names; also of the operators behind the sums.
PYRAMID = (
    *conv("lateral_convs.{n}.conv", "laterals.{n}"),
    *conv("fpn_convs.{n}.conv", "outputs.{n}"),
    *_involution("fpn_convs.{n}", "outputs.{n}"),
)


def _prefixed(rules: tuple[Rule, ...], official: str, own: str) -> list[Rule]:
    """The rules of a module that is an attribute of another."""

    def inside(names: tuple[str, str]) -> tuple[str, str]:
        return f"{official}.{names[0]}", f"{own}.{names[1]}"

    prefixed = []
    for rule in rules:
        size = rule.size and dataclasses.replace(rule.size, names=tuple(map(inside, rule.size.names)))
        names = dict(zip(("official", "own"), inside((rule.official, rule.own)), strict=True))
        prefixed.append(dataclasses.replace(rule, **names, size=size, beside=rule.beside and inside(rule.beside)))
    return prefixed


def _linear(official: str, own: str, layout: TensorLayout = LINEAR) -> list[Rule]:
    return [Rule(f"{official}.weight", f"{own}.kernel", layout), Rule(f"{official}.bias", f"{own}.bias")]


def _box_head(official: str, own: str) -> list[Rule]:
    return [
        *_linear(f"{official}.shared_fcs.0", f"{own}.hidden1", BINS_LINEAR),
        *_linear(f"{official}.shared_fcs.1", f"{own}.hidden2"),
        *_linear(f"{official}.fc_cls", f"{own}.classes"),
        *_linear(f"{official}.fc_reg", f"{own}.deltas"),
    ]


def _mask_head(official: str, own: str) -> list[Rule]:
    return [
        *conv(f"{official}.convs.{{m}}.conv", f"{own}.convs.{{m}}"),
        *_involution(f"{official}.convs.{{m}}.0", f"{own}.convs.{{m}}"),
        Rule(f"{official}.upsample.weight", f"{own}.upsample.conv.kernel", TRANSPOSED),
        Rule(f"{official}.upsample.bias", f"{own}.upsample.bias"),
        *conv(f"{official}.conv_logits", f"{own}.logits"),
    ]


DETECTOR = (
    *_prefixed(BACKBONE, "backbone", "backbone"),
    *_prefixed(PYRAMID, "neck", "neck"),
    *conv("rpn_head.rpn_conv", "rpn.conv"),
    *_involution("rpn_head.rpn_conv", "rpn.conv"),
    *conv("rpn_head.rpn_cls", "rpn.objectness"),
    *conv("rpn_head.rpn_reg", "rpn.deltas"),
    *_box_head("roi_head.bbox_head", "regions.box"),
    *_mask_head("roi_head.mask_head", "regions.mask"),
    *_box_head("roi_head.bbox_head.{n}", "regions.boxes.{n}"),
    *_mask_head("roi_head.mask_head.{n}", "regions.masks.{n}"),
    *conv("roi_head.mask_head.{n}.conv_res.conv", "regions.masks.{n}.flow"),
    *conv("roi_head.semantic_head.lateral_convs.{n}.conv", "regions.semantic.laterals.{n}"),
    *conv("roi_head.semantic_head.convs.{n}.conv", "regions.semantic.convs.{n}"),
    *conv("roi_head.semantic_head.conv_embedding.conv", "regions.semantic.embedding"),
    *conv("roi_head.semantic_head.conv_logits", "regions.semantic.logits"),
    Rule("semantic_head.conv_upsample_layers.{n}.conv.{m}.conv.weight", "semantic.scales.{n}.convs.{m}.kernel", CONV),
    Rule("semantic_head.conv_upsample_layers.{n}.conv.{m}.gn.weight", "semantic.scales.{n}.norms.{m}.scale"),
    Rule("semantic_head.conv_upsample_layers.{n}.conv.{m}.gn.bias", "semantic.scales.{n}.norms.{m}.bias"),
    *conv("semantic_head.conv_logits", "semantic.logits"),
    *conv("bbox_head.cls_convs.{n}.conv", "dense.class_convs.{n}"),
    *conv("bbox_head.reg_convs.{n}.conv", "dense.box_convs.{n}"),
    *conv("bbox_head.retina_cls", "dense.classes"),
    *conv("bbox_head.retina_reg", "dense.deltas"),
)

RULES = (
    *BACKBONE,
    Rule("fc.weight", "head.kernel", LINEAR),
    Rule("fc.bias", "head.bias"),
    *_linear("classifier.0.cls", "head.static"),
    *_dcd("classifier.0", "head", prefix="cls_", layout=LINEAR),
    # Upsamplers alone, with the names of their packages: DDF-Up's S² branches, CARAFE.
    *conv("spatial_branch.{n}.{m}", "spatial_branch.{n}.convs.{m}"),
    *_channel_branch("channel_branch.{n}", "channel_branch.{n}"),
    *conv("channel_compressor", "channel_compressor"),
    *conv("content_encoder", "content_encoder"),
    *PYRAMID,
    *DETECTOR,
    *NAT,
)
"""Every name matches exactly one."""

HEAD_BIASES = ("fc.bias", "head.bias", "classifier.0.cls.bias", "head.static.bias", "head.linear.bias")
"""Whose size is the number of classes."""
