"""LR-Nets: residual networks with a local relation layer in place of each 3×3 convolution, and of the stem's.

Reference: Hu et al., "Local Relation Networks for Image Recognition", ICCV 2019. There is no official code of the
network. Bottlenecks of 100, 200, 400 and 800 channels give LR-Net-50's published parameters.
"""

import dataclasses

from ddf_jax.layers import LocalRelation
from ddf_jax.models import resnet
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import ChannelwiseOp, partial_layer


def with_local_relations(base: ResNetConfig, *, kernel_size: int) -> ResNetConfig:
    """`base` in LR-Net's layout, with local relations of this size in the blocks and the stem."""
    op = ChannelwiseOp(partial_layer(LocalRelation, kernel_size=kernel_size))
    return dataclasses.replace(base, spatial_op=op, inner_ratio=100 / 64, stem="pointwise", stem_op=op)


@register
def lrnet26(*, kernel_size: int = 7) -> ResNetConfig:
    """LR-Net-26: bottlenecks [2, 2, 2, 2], whose size is nearest to the published one (Hu et al., ICCV 2019)."""
    return with_local_relations(ResNetConfig(blocks=(2, 2, 2, 2)), kernel_size=kernel_size)


@register
def lrnet50(*, kernel_size: int = 7) -> ResNetConfig:
    """LR-Net-50: bottlenecks [3, 4, 6, 3] (Hu et al., ICCV 2019)."""
    return with_local_relations(resnet.resnet50(), kernel_size=kernel_size)


@register
def lrnet101(*, kernel_size: int = 7) -> ResNetConfig:
    """LR-Net-101: bottlenecks [3, 4, 23, 3] (Hu et al., ICCV 2019)."""
    return with_local_relations(resnet.resnet101(), kernel_size=kernel_size)
