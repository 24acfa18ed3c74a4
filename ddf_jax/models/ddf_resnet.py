"""DDF-ResNets: residual networks with a decoupled dynamic filter in place of each 3×3 convolution of the blocks.

Reference: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Section 5.
"""

import dataclasses
from typing import Any

from ddf_jax.layers import DDF, FilterBatchNorm, FilterSigmoid
from ddf_jax.layers.initializers import normal_fan_out
from ddf_jax.models import resnet
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import ChannelwiseOp, partial_layer
from pallas_kernels import Combine


def with_ddf(base: ResNetConfig, **options: Any) -> ResNetConfig:
    """`base` with DDF, with these options, in place of its 3×3 convolutions."""
    ddf = partial_layer(DDF, kernel_init=normal_fan_out, **options)
    return dataclasses.replace(base, spatial_op=ChannelwiseOp(ddf, mix=base.block == "basic"))


@register
def ddf_resnet18(*, squeeze_ratio: float = 0.5, combine: Combine = "mul") -> ResNetConfig:
    """DDF-ResNet-18: a DDF and a 1×1 convolution in place of each 3×3 convolution; Table 4 of the paper."""
    # σ = 0.5 gives the published 7.7 M parameters; 0.2, as in the deeper networks, gives 4.3 M.
    return with_ddf(resnet.resnet18(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_resnet26(*, squeeze_ratio: float = 0.2, combine: Combine = "mul") -> ResNetConfig:
    """DDF-ResNet-26: DDF in the bottlenecks of ResNet-26; not in the paper."""
    return with_ddf(resnet.resnet26(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_resnet38(*, squeeze_ratio: float = 0.2, combine: Combine = "mul") -> ResNetConfig:
    """DDF-ResNet-38: DDF in the bottlenecks of ResNet-38; not in the paper, but in Bi-volution's Table 1."""
    return with_ddf(resnet.resnet38(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_resnet50(*, squeeze_ratio: float = 0.2, combine: Combine = "mul") -> ResNetConfig:
    """DDF-ResNet-50: Tables 4 and 5 of the paper; `squeeze_ratio` is σ, varied in Table 3c."""
    return with_ddf(resnet.resnet50(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_resnet101(*, squeeze_ratio: float = 0.2, combine: Combine = "mul") -> ResNetConfig:
    """DDF-ResNet-101: Table 5 of the paper."""
    return with_ddf(resnet.resnet101(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_resnet152(*, squeeze_ratio: float = 0.2, combine: Combine = "mul") -> ResNetConfig:
    """DDF-ResNet-152: DDF in the bottlenecks of ResNet-152; not in the paper."""
    return with_ddf(resnet.resnet152(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_add_resnet50(*, squeeze_ratio: float = 0.2) -> ResNetConfig:
    """DDF-ResNet-50 whose filters are sums, not products, of the spatial and the channel filter."""
    return ddf_resnet50(squeeze_ratio=squeeze_ratio, combine="add")


@register
def ddf_add_resnet101(*, squeeze_ratio: float = 0.2) -> ResNetConfig:
    """DDF-ResNet-101 whose filters are sums, not products, of the spatial and the channel filter."""
    return ddf_resnet101(squeeze_ratio=squeeze_ratio, combine="add")


@register
def ddf_add_resnet152(*, squeeze_ratio: float = 0.2) -> ResNetConfig:
    """DDF-ResNet-152 whose filters are sums, not products, of the spatial and the channel filter."""
    return ddf_resnet152(squeeze_ratio=squeeze_ratio, combine="add")


@register
def ddf_spatial_resnet50() -> ResNetConfig:
    """DDF-ResNet-50 with spatial filters alone; the ablation in Table 3a."""
    return with_ddf(resnet.resnet50(), channel=False)


@register
def ddf_channel_resnet50(*, squeeze_ratio: float = 0.2) -> ResNetConfig:
    """DDF-ResNet-50 with channel filters alone; the ablation in Table 3a."""
    return with_ddf(resnet.resnet50(), squeeze_ratio=squeeze_ratio, spatial=False)


@register
def ddf_batchnorm_resnet50(*, squeeze_ratio: float = 0.2) -> ResNetConfig:
    """DDF-ResNet-50 with batch normalisation in place of filter normalisation; the ablation in Table 3b."""
    return with_ddf(resnet.resnet50(), squeeze_ratio=squeeze_ratio, normalization=FilterBatchNorm)


@register
def ddf_sigmoid_resnet50(*, squeeze_ratio: float = 0.2) -> ResNetConfig:
    """DDF-ResNet-50 with a sigmoid in place of filter normalisation; the ablation in Table 3b."""
    return with_ddf(resnet.resnet50(), squeeze_ratio=squeeze_ratio, normalization=FilterSigmoid)
