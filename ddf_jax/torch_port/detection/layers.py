"""A convolution with what follows it, named as mmcv's ConvModule."""

from collections import OrderedDict

from torch import nn

from ddf_jax.torch_port.involution import Involution


def conv_module(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    norm_groups: int = 0,
    relu: bool = True,
) -> nn.Sequential:
    """`conv`, with a GroupNorm `gn` instead of a bias if `norm_groups`, and a ReLU."""
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=not norm_groups)
    layers: dict[str, nn.Module] = {"conv": conv}
    if norm_groups:
        layers["gn"] = nn.GroupNorm(norm_groups, out_channels)
    if relu:
        layers["activate"] = nn.ReLU()
    return nn.Sequential(OrderedDict(layers))


def involution(channels: int) -> Involution:
    """The 7×7 involution of detectors, in place of a 3×3 convolution."""
    return Involution(channels, 7)
