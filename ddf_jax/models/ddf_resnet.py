"""DDF-ResNets: residual networks with every 3×3 convolution of the blocks replaced by a decoupled dynamic filter.

Reference: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Section 5.
"""

import dataclasses

from ddf_jax.layers import DDF
from ddf_jax.layers.convolution import normal_fan_out
from ddf_jax.models import resnet
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ChannelwiseOp, ResNetConfig
from pallas_kernels.dynamic_filter.spec import Combine


def with_ddf(base: ResNetConfig, *, squeeze_ratio: float, combine: Combine = "mul") -> ResNetConfig:
    """`base` with DDF where its 3×3 convolutions stood. `squeeze_ratio` is the paper's σ."""
    options = {"squeeze_ratio": squeeze_ratio, "combine": combine, "kernel_init": normal_fan_out}
    op = ChannelwiseOp(DDF, tuple(options.items()), mix=base.block == "basic")
    return dataclasses.replace(base, spatial_op=op)


@register
def ddf_resnet18(*, squeeze_ratio: float = 0.5, combine: Combine = "mul") -> ResNetConfig:
    # σ = 0.5 is what counts the published 7.7 M parameters; 0.2, as in the deeper ones, gives 4.3 M.
    return with_ddf(resnet.resnet18(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_resnet26(*, squeeze_ratio: float = 0.2, combine: Combine = "mul") -> ResNetConfig:
    return with_ddf(resnet.resnet26(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_resnet38(*, squeeze_ratio: float = 0.2, combine: Combine = "mul") -> ResNetConfig:
    return with_ddf(resnet.resnet38(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_resnet50(*, squeeze_ratio: float = 0.2, combine: Combine = "mul") -> ResNetConfig:
    return with_ddf(resnet.resnet50(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_resnet101(*, squeeze_ratio: float = 0.2, combine: Combine = "mul") -> ResNetConfig:
    return with_ddf(resnet.resnet101(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_resnet152(*, squeeze_ratio: float = 0.2, combine: Combine = "mul") -> ResNetConfig:
    return with_ddf(resnet.resnet152(), squeeze_ratio=squeeze_ratio, combine=combine)


@register
def ddf_add_resnet50(*, squeeze_ratio: float = 0.2) -> ResNetConfig:
    return ddf_resnet50(squeeze_ratio=squeeze_ratio, combine="add")


@register
def ddf_add_resnet101(*, squeeze_ratio: float = 0.2) -> ResNetConfig:
    return ddf_resnet101(squeeze_ratio=squeeze_ratio, combine="add")


@register
def ddf_add_resnet152(*, squeeze_ratio: float = 0.2) -> ResNetConfig:
    return ddf_resnet152(squeeze_ratio=squeeze_ratio, combine="add")
