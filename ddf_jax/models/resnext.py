"""ResNeXts: residual networks with wide, grouped 3×3 convolutions.

Reference: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017.
"""

import dataclasses

from ddf_jax.layers import Conv
from ddf_jax.models import resnet
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import partial_layer


def with_groups(base: ResNetConfig, *, groups: int, group_width: int) -> ResNetConfig:
    """`base` with `groups` groups, of `group_width` channels each in the first stage."""
    ratio = groups * group_width / base.width
    return dataclasses.replace(base, inner_ratio=ratio, spatial_op=partial_layer(Conv, groups=groups))


@register
def resnext50_32x4d() -> ResNetConfig:
    """ResNeXt-50 with 32 groups of 4 channels (Xie et al., CVPR 2017)."""
    return with_groups(resnet.resnet50(), groups=32, group_width=4)


@register
def resnext101_32x4d() -> ResNetConfig:
    """ResNeXt-101 with 32 groups of 4 channels (Xie et al., CVPR 2017)."""
    return with_groups(resnet.resnet101(), groups=32, group_width=4)
