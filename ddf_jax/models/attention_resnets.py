"""ResNets with attention: SE, ECA and CBAM in each block, BAM between stages, attention-augmented convolutions.

The layers have the references.
"""

import dataclasses

from ddf_jax.layers import BAM, CBAM, ECA, AttentionAugmentedConv, Conv, SqueezeExcitation
from ddf_jax.models import resnet
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import LayerFactory, partial_layer


@register
def se_resnet50() -> ResNetConfig:
    """ResNet-50 with squeeze-and-excitation in each block (Hu et al., CVPR 2018)."""
    return dataclasses.replace(resnet.resnet50(), attention=SqueezeExcitation)


@register
def se_resnet101() -> ResNetConfig:
    """ResNet-101 with squeeze-and-excitation in each block (Hu et al., CVPR 2018)."""
    return dataclasses.replace(resnet.resnet101(), attention=SqueezeExcitation)


@register
def eca_resnet50() -> ResNetConfig:
    """ResNet-50 with efficient channel attention in each block (Wang et al., CVPR 2020)."""
    return dataclasses.replace(resnet.resnet50(), attention=ECA)


@register
def eca_resnet101() -> ResNetConfig:
    """ResNet-101 with efficient channel attention in each block (Wang et al., CVPR 2020)."""
    return dataclasses.replace(resnet.resnet101(), attention=ECA)


@register
def cbam_resnet50() -> ResNetConfig:
    """ResNet-50 with channel and spatial attention in each block (CBAM; Woo et al., ECCV 2018)."""
    return dataclasses.replace(resnet.resnet50(), attention=CBAM)


@register
def cbam_resnet101() -> ResNetConfig:
    """ResNet-101 with channel and spatial attention in each block (CBAM; Woo et al., ECCV 2018)."""
    return dataclasses.replace(resnet.resnet101(), attention=CBAM)


@register
def bam_resnet50() -> ResNetConfig:
    """ResNet-50 with a bottleneck attention module after stages 1 to 3 (BAM; Park et al., BMVC 2018)."""
    return dataclasses.replace(resnet.resnet50(), stage_attention=BAM)


@register
def bam_resnet101() -> ResNetConfig:
    """ResNet-101 with a bottleneck attention module after stages 1 to 3 (BAM; Park et al., BMVC 2018)."""
    return dataclasses.replace(resnet.resnet101(), stage_attention=BAM)


@register
def aa_resnet50() -> ResNetConfig:
    """ResNet-50 with attention-augmented convolutions in stages 2 to 4 (Bello et al., ICCV 2019)."""
    return with_augmented_convolutions(resnet.resnet50())


@register
def aa_resnet101() -> ResNetConfig:
    """ResNet-101 with attention-augmented convolutions in stages 2 to 4 (Bello et al., ICCV 2019)."""
    return with_augmented_convolutions(resnet.resnet101())


def with_augmented_convolutions(base: ResNetConfig) -> ResNetConfig:
    """`base` with attention in the last three stages, for images of about 224 pixels.

    Attention is pooled on its largest maps, 28×28. Without pooling the network has 4.7 G MACs; the paper prints 4.2.
    """
    ops = _augmented(128, 14, attention_stride=2), _augmented(256, 14), _augmented(512, 7)
    return dataclasses.replace(base, spatial_op=(Conv, *ops))


def _augmented(channels: int, size: int, **options: int) -> LayerFactory:
    """The paper's κ = 0.2, with at least 20 key channels for each of 8 heads, and υ = 0.1 in multiples of the heads."""
    key_channels = max(int(0.2 * channels) // 8 * 8, 160)
    value_channels = int(0.1 * channels) // 8 * 8
    return partial_layer(
        AttentionAugmentedConv, key_channels=key_channels, value_channels=value_channels, size=size, **options
    )
