"""ResNets with mixtures of experts (CondConv, DynamicConv) or generated kernels (WeightNet) as 3×3 convolutions.

The depthwise ones take the place of DDF in a bottleneck. The layers have the references.
"""

import dataclasses

from ddf_jax.layers import CondConv, DepthwiseCondConv, DepthwiseWeightNet, DynamicConv
from ddf_jax.models import resnet
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import ChannelwiseOp, partial_layer


@register
def condconv_resnet50(*, experts: int = 8) -> ResNetConfig:
    """ResNet-50 with conditionally parameterised 3×3 convolutions (CondConv; Yang et al., NeurIPS 2019)."""
    return dataclasses.replace(resnet.resnet50(), spatial_op=partial_layer(CondConv, experts=experts))


@register
def dynamicconv_resnet50(*, experts: int = 4, temperature: float = 30.0) -> ResNetConfig:
    """ResNet-50 with attention over the kernels of its 3×3 convolutions (DynamicConv; Chen et al., CVPR 2020)."""
    op = partial_layer(DynamicConv, experts=experts, temperature=temperature)
    return dataclasses.replace(resnet.resnet50(), spatial_op=op)


@register
def dwcondconv_resnet50(*, experts: int = 8) -> ResNetConfig:
    """ResNet-50 with depthwise CondConvs as 3×3 convolutions: DwCondConv in Zhou et al., CVPR 2021, Table 4."""
    op = ChannelwiseOp(partial_layer(DepthwiseCondConv, experts=experts))
    return dataclasses.replace(resnet.resnet50(), spatial_op=op)


@register
def dwweightnet_resnet50() -> ResNetConfig:
    """ResNet-50 with depthwise WeightNets as 3×3 convolutions: DwWeightNet in Zhou et al., CVPR 2021, Table 4."""
    return dataclasses.replace(resnet.resnet50(), spatial_op=ChannelwiseOp(partial_layer(DepthwiseWeightNet)))
