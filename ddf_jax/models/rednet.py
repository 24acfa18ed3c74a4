"""RedNets: residual networks with an involution in place of each 3×3 convolution, except for two of the stem.

Reference: Li et al., "Involution: Inverting the Inherence of Convolution for Visual Recognition", CVPR 2021.
"""

import dataclasses

from ddf_jax.layers import Involution
from ddf_jax.models import resnet
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import ChannelwiseOp, LayerFactory, partial_layer


def red(base: ResNetConfig, *, op: LayerFactory, stem_op: LayerFactory) -> ResNetConfig:
    """`base` in RedNet's layout, with these operators in the blocks and in the middle of the deep stem."""
    return dataclasses.replace(base, spatial_op=ChannelwiseOp(op), stem="deep", stem_op=ChannelwiseOp(stem_op))


def with_involution(base: ResNetConfig, *, group_channels: int, stem_kernel_size: int = 3) -> ResNetConfig:
    """`base` in RedNet's layout, with 7×7 involutions in the blocks and a smaller one in the stem.

    Every `group_channels` channels share a filter.
    """
    op, stem_op = (
        partial_layer(Involution, kernel_size=size, group_channels=group_channels) for size in (7, stem_kernel_size)
    )
    return red(base, op=op, stem_op=stem_op)


@register
def rednet26(*, group_channels: int = 16, stem_kernel_size: int = 3) -> ResNetConfig:
    """RedNet-26: bottlenecks [1, 2, 4, 1] in RedNet's layout (Li et al., CVPR 2021)."""
    return with_involution(resnet.resnet26(), group_channels=group_channels, stem_kernel_size=stem_kernel_size)


@register
def rednet38(*, group_channels: int = 16, stem_kernel_size: int = 3) -> ResNetConfig:
    """RedNet-38: bottlenecks [2, 3, 5, 2] in RedNet's layout (Li et al., CVPR 2021)."""
    return with_involution(resnet.resnet38(), group_channels=group_channels, stem_kernel_size=stem_kernel_size)


@register
def rednet50(*, group_channels: int = 16, stem_kernel_size: int = 3) -> ResNetConfig:
    """RedNet-50: bottlenecks [3, 4, 6, 3] in RedNet's layout (Li et al., CVPR 2021)."""
    return with_involution(resnet.resnet50(), group_channels=group_channels, stem_kernel_size=stem_kernel_size)


@register
def rednet101(*, group_channels: int = 16, stem_kernel_size: int = 3) -> ResNetConfig:
    """RedNet-101: bottlenecks [3, 4, 23, 3] in RedNet's layout (Li et al., CVPR 2021)."""
    return with_involution(resnet.resnet101(), group_channels=group_channels, stem_kernel_size=stem_kernel_size)


@register
def rednet152(*, group_channels: int = 16, stem_kernel_size: int = 3) -> ResNetConfig:
    """RedNet-152: bottlenecks [3, 8, 36, 3] in RedNet's layout (Li et al., CVPR 2021)."""
    return with_involution(resnet.resnet152(), group_channels=group_channels, stem_kernel_size=stem_kernel_size)
