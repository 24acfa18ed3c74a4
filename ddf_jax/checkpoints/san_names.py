"""Names of SANs, those of hszhao/SAN and ours."""

from ddf_jax.checkpoints.layouts import (
    CONV,
    PATCH,
    PATCH_INPUTS,
    SHARED,
    SHARED_INPUTS,
    SHARED_OUTPUTS,
    Rule,
    Size,
    conv,
    norm,
)

_IS_SAN = ("conv_in.weight", "stem.conv_in.kernel")


def _groups(query: tuple[int, int], reduce: tuple[int, int], span: tuple[int, int]) -> int:
    """The groups of a module's filters, from the channels of its relation's convolutions.

    The last convolution gives one number for each group where pairs of pixels are related, by R differences and two
    coordinates, and one for each group and tap where a patch is, by its query and T keys of R channels.
    """
    related, inputs = query[1], reduce[0]
    return span[1] if inputs == related + 2 else span[1] // (inputs // related - 1)


def _block(official: str, own: str) -> list[Rule]:
    sam, spatial, relation = f"{official}.sam", f"{own}.spatial", f"{own}.spatial.spatial_branch"
    query, reduce, span = (
        (f"{sam}.{theirs}.weight", f"{relation}.{ours}.kernel")
        for theirs, ours in (("conv1", "query"), ("conv_w.2", "reduce"), ("conv_w.5", "span"))
    )
    related, groups = Size((query,), lambda query: query[1]), Size((query, reduce, span), _groups)
    return [
        *conv(f"{sam}.conv1", f"{relation}.query"),
        *conv(f"{sam}.conv2", f"{relation}.key"),
        *conv(f"{sam}.conv_p", f"{relation}.position"),
        *norm(f"{sam}.conv_w.0", f"{relation}.norm1", PATCH, related),
        Rule(reduce[0], reduce[1], PATCH_INPUTS, related),
        *norm(f"{sam}.conv_w.3", f"{relation}.norm2"),
        *conv(f"{sam}.conv_w.5", f"{relation}.span"),
        Rule(f"{sam}.conv3.weight", f"{spatial}.value.kernel", SHARED_OUTPUTS, groups),
        Rule(f"{sam}.conv3.bias", f"{spatial}.value.bias", SHARED, groups),
        *norm(f"{official}.bn2", f"{own}.norm2", SHARED, groups, beside=_IS_SAN),
        Rule(f"{official}.conv.weight", f"{own}.expand.kernel", SHARED_INPUTS, groups),
        Rule(f"{official}.conv.bias", f"{own}.expand.bias"),
    ]


# The official `layer0` is a part of our stem; the others are our stages. `bn1` of a block is named as a ResNet's.
SAN = (
    Rule("conv_in.weight", "stem.conv_in.kernel", CONV),
    *norm("bn_in", "stem.norm_in"),
    Rule("conv0.weight", "stem.transition.kernel", CONV),
    *norm("layer0.{block}.bn1", "stem.blocks.{block}.norm1"),
    *_block("layer0.{block}", "stem.blocks.{block}"),
    *norm("bn0", "stem.norm_out"),
    Rule("conv{stage}.weight", "transitions.{stage}.kernel", CONV, beside=_IS_SAN),
    *_block("layer{stage}.{block}", "stages.{stage}.{block}"),
    *norm("bn{stage}", "norms.{stage}", beside=_IS_SAN),
)
