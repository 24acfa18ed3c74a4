"""Residual networks with self-attention in place of each 3×3 convolution, and of the stem's.

Reference: Ramachandran et al., "Stand-Alone Self-Attention in Vision Models", NeurIPS 2019.
"""

import dataclasses
from typing import Any

from ddf_jax.errors import UserError
from ddf_jax.layers import BlockAttention, SelfAttention
from ddf_jax.models import resnet
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import partial_layer
from ddf_jax.models.stems import STEMS


def with_self_attention(base: ResNetConfig, *, kernel_size: int, heads: int, stem: str) -> ResNetConfig:
    """`base` with self-attention in its blocks and its stem.

    Args:
        base: the network.
        kernel_size: of the attention in the blocks.
        heads: of every attention.
        stem: "attention" within blocks of 4×4 pixels and a max-pool; "conv", the paper's networks with a convolutional
            stem; or another one of `ResNetConfig`.
    """
    if stem not in (known := ("attention", "conv", *STEMS)):
        raise UserError(f"`stem` must be one of {', '.join(known)}, got {stem!r}.")
    op = partial_layer(SelfAttention, kernel_size=kernel_size, heads=heads)
    kind: Any = {"attention": "block", "conv": "imagenet"}.get(stem, stem)
    return dataclasses.replace(base, spatial_op=op, stem=kind, stem_op=partial_layer(BlockAttention, heads=heads))


@register
def sasa_resnet26(*, kernel_size: int = 7, heads: int = 8, stem: str = "attention") -> ResNetConfig:
    """ResNet-26 with stand-alone self-attention (Ramachandran et al., NeurIPS 2019)."""
    return with_self_attention(resnet.resnet26(), kernel_size=kernel_size, heads=heads, stem=stem)


@register
def sasa_resnet38(*, kernel_size: int = 7, heads: int = 8, stem: str = "attention") -> ResNetConfig:
    """ResNet-38 with stand-alone self-attention (Ramachandran et al., NeurIPS 2019)."""
    return with_self_attention(resnet.resnet38(), kernel_size=kernel_size, heads=heads, stem=stem)


@register
def sasa_resnet50(*, kernel_size: int = 7, heads: int = 8, stem: str = "attention") -> ResNetConfig:
    """ResNet-50 with stand-alone self-attention (Ramachandran et al., NeurIPS 2019)."""
    return with_self_attention(resnet.resnet50(), kernel_size=kernel_size, heads=heads, stem=stem)
