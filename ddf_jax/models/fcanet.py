"""FcaNets: residual networks with multi-spectral channel attention in each block.

Reference: Qin et al., "FcaNet: Frequency Channel Attention Networks", ICCV 2021.
"""

import dataclasses

from ddf_jax.layers import FCA
from ddf_jax.layers.fca import MAP_SIZES
from ddf_jax.models import resnet
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import partial_layer


def with_frequencies(base: ResNetConfig) -> ResNetConfig:
    """`base` with FCA at the end of every block, for the maps of images of 224 pixels; others are averaged to them."""
    return dataclasses.replace(base, attention=tuple(partial_layer(FCA, size=size) for size in MAP_SIZES))


@register
def fca_resnet50() -> ResNetConfig:
    """FcaNet-50: ResNet-50 with multi-spectral channel attention (Qin et al., ICCV 2021)."""
    return with_frequencies(resnet.resnet50())


@register
def fca_resnet101() -> ResNetConfig:
    """FcaNet-101: ResNet-101 with multi-spectral channel attention (Qin et al., ICCV 2021)."""
    return with_frequencies(resnet.resnet101())
