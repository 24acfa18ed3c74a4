"""DCDC-ResNets: RedNets with a dual complementary dynamic convolution in place of each involution.

Reference: Yan et al., "Dual Complementary Dynamic Convolution", 2022.
"""

from typing import Any

from ddf_jax.layers import DCDC
from ddf_jax.models import resnet
from ddf_jax.models.rednet import red
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import partial_layer


def with_dcdc(base: ResNetConfig, **options: Any) -> ResNetConfig:
    """`base` with DCDC, with these options; the generated kernel of the stem is always 1×1."""
    stem_options = {**options, "kernel_size": 3, "shared_kernel_size": 1}
    return red(base, op=partial_layer(DCDC, **options), stem_op=partial_layer(DCDC, **stem_options))


@register
def dcdc_resnet26(
    *,
    lsa: bool = True,
    shared: str | None = "gsi",
    context_kernel_size: int = 3,
    shared_kernel_size: int = 1,
    width_factor: float = 1.0,
    group_channels: int = 16,
) -> ResNetConfig:
    """DCDC-ResNet-26: Table I of the paper, and by its options the ablations of Tables III and IV."""
    return with_dcdc(
        resnet.resnet26(),
        lsa=lsa,
        shared=shared,
        context_kernel_size=context_kernel_size,
        shared_kernel_size=shared_kernel_size,
        width_factor=width_factor,
        group_channels=group_channels,
    )


@register
def dcdc_resnet38(*, group_channels: int = 16) -> ResNetConfig:
    """DCDC-ResNet-38: Table I of the paper."""
    return with_dcdc(resnet.resnet38(), group_channels=group_channels)


@register
def dcdc_resnet50(*, group_channels: int = 16) -> ResNetConfig:
    """DCDC-ResNet-50: Tables I and II of the paper."""
    return with_dcdc(resnet.resnet50(), group_channels=group_channels)


@register
def dcdc_resnet101(*, group_channels: int = 16) -> ResNetConfig:
    """DCDC-ResNet-101: Table I of the paper."""
    return with_dcdc(resnet.resnet101(), group_channels=group_channels)
