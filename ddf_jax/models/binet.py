"""BiNets: Bi-volution in place of the involutions of a RedNet (dc), or of the DDFs of a DDF-ResNet (dc-ca).

Reference: Hu et al., "Bi-volution", 2022. The paper publishes no code and leaves sizes open. The static branch of (dc),
3×3 in 16 groups, was found by counting: it gives the published parameters and FLOPs of BiNet-50 and BiNet-101 and of
all dc rows of Table 4. (dc-ca) has the stated static branch, 3×3 with 32 channels a group. Both miss BiNet-38.
"""

import dataclasses
from typing import NamedTuple

from ddf_jax.layers import DDF, Bivolution, Involution
from ddf_jax.layers.initializers import normal_fan_out
from ddf_jax.models import resnet
from ddf_jax.models.rednet import red
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import ChannelwiseOp, LayerFactory, partial_layer


class BivolutionOptions(NamedTuple):
    """Options of the paper's ablations: parts (None switches one off) and the receptive field of the context."""

    static_kernel_size: int | None
    context_kernel_size: int | None = 3
    context_dilation: int = 1
    context_reduction: int = 1
    context_pointwise: bool = False


DC = BivolutionOptions(static_kernel_size=3)
DC_CA = BivolutionOptions(static_kernel_size=3)


def with_dc(
    base: ResNetConfig, options: BivolutionOptions, *, group_channels: int = 16, static_groups: int = 16
) -> ResNetConfig:
    """`base` in RedNet's layout, with Bi-volution on involution as its operator."""

    def bivolution(kernel_size: int) -> LayerFactory:
        involution = partial_layer(Involution, kernel_size=kernel_size, group_channels=group_channels)
        return partial_layer(Bivolution, dynamic=involution, static_groups=static_groups, **options._asdict())

    return red(base, op=bivolution(7), stem_op=bivolution(3))


def with_dc_ca(base: ResNetConfig, options: BivolutionOptions, *, squeeze_ratio: float = 0.2) -> ResNetConfig:
    """`base` with Bi-volution on DDF in place of its 3×3 convolutions."""
    ddf = partial_layer(DDF, kernel_init=normal_fan_out, squeeze_ratio=squeeze_ratio)
    return dataclasses.replace(
        base, spatial_op=ChannelwiseOp(partial_layer(Bivolution, dynamic=ddf, **options._asdict()))
    )


@register
def binet38(*, group_channels: int = 16, static_groups: int = 16) -> ResNetConfig:
    """BiNet-38 (dc): RedNet-38 with Bi-volution; Table 1 (13.2 M parameters there, 13.8 M here)."""
    return with_dc(resnet.resnet38(), DC, group_channels=group_channels, static_groups=static_groups)


@register
def binet50(*, bivolution: BivolutionOptions = DC, group_channels: int = 16, static_groups: int = 16) -> ResNetConfig:
    """BiNet-50 (dc): RedNet-50 with Bi-volution; Table 1 of the paper, and Table 4 by `bivolution`."""
    return with_dc(resnet.resnet50(), bivolution, group_channels=group_channels, static_groups=static_groups)


@register
def binet101(*, group_channels: int = 16, static_groups: int = 16) -> ResNetConfig:
    """BiNet-101 (dc): RedNet-101 with Bi-volution; Table 1 of the paper."""
    return with_dc(resnet.resnet101(), DC, group_channels=group_channels, static_groups=static_groups)


@register
def binet38_dc_ca(*, squeeze_ratio: float = 0.2) -> ResNetConfig:
    """BiNet-38 (dc-ca): DDF-ResNet-38 with Bi-volution; Table 1 (14.8 M parameters there, 15.1 M here)."""
    return with_dc_ca(resnet.resnet38(), DC_CA, squeeze_ratio=squeeze_ratio)


@register
def binet50_dc_ca(*, bivolution: BivolutionOptions = DC_CA, squeeze_ratio: float = 0.2) -> ResNetConfig:
    """BiNet-50 (dc-ca): DDF-ResNet-50 with Bi-volution; Table 1 of the paper, and Table 4 by `bivolution`."""
    return with_dc_ca(resnet.resnet50(), bivolution, squeeze_ratio=squeeze_ratio)


@register
def binet101_dc_ca(*, squeeze_ratio: float = 0.2) -> ResNetConfig:
    """BiNet-101 (dc-ca): DDF-ResNet-101 with Bi-volution; Table 1 of the paper."""
    return with_dc_ca(resnet.resnet101(), DC_CA, squeeze_ratio=squeeze_ratio)
