"""ResNets with SE or ECA, ResNeXts and Res2Nets, with timm's parameter names."""

import math

import torch
from torch import Tensor, nn

from ddf_jax.torch_port.resnet import Bottleneck, SpatialOp


class SqueezeExcite(nn.Module):
    """Weights the channels by a perceptron of their averages: [B, C, H, W] to the same shape.

    Reference: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class EfficientAttention(nn.Module):
    """Weights the channels by a convolution over their averages: [B, C, H, W] to the same shape.

    Reference: Wang et al., ECA-Net, CVPR 2020.
    """

    def __init__(self, channels: int):
        super().__init__()
        size = int((math.log2(channels) + 1) / 2)
        size = max(size if size % 2 else size + 1, 3)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid().transpose(1, 2).unsqueeze(-1)


class SEBottleneck(Bottleneck):
    """A bottleneck with `SqueezeExcite` at the end of its residual branch."""

    def __init__(self, in_channels: int, width: int, stride: int, spatial_op: SpatialOp):
        super().__init__(in_channels, width, stride, spatial_op)
        self.se = SqueezeExcite(width * self.expansion)


class ECABottleneck(Bottleneck):
    """A bottleneck with `EfficientAttention` at the end of its residual branch."""

    def __init__(self, in_channels: int, width: int, stride: int, spatial_op: SpatialOp):
        super().__init__(in_channels, width, stride, spatial_op)
        self.se = EfficientAttention(width * self.expansion)


class ResNeXtBottleneck(Bottleneck):
    """A bottleneck whose 3×3 convolution is twice as wide, for 32 groups of 4 channels at a width of 64.

    Reference: Xie et al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017.
    """

    inner_ratio = 2


def grouped_conv(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=32, bias=False)


class Res2NetBottleneck(Bottleneck):
    """A bottleneck with hierarchical 3×3 convolutions over groups of channels.

    Reference: Gao et al., Res2Net: A New Multi-scale Backbone Architecture, TPAMI 2019.
    """

    scale_width, scales = 26, 4

    def __init__(self, in_channels: int, width: int, stride: int, spatial_op: SpatialOp):
        super().__init__(in_channels, width, stride, lambda *_: nn.Identity())
        group = width * self.scale_width // 64
        inner, out_channels = group * self.scales, width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.convs = nn.ModuleList(spatial_op(group, group, stride) for _ in range(self.scales - 1))
        self.bns = nn.ModuleList(nn.BatchNorm2d(group) for _ in range(self.scales - 1))
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.pool = nn.Identity() if self.downsample is None else nn.AvgPool2d(3, stride, padding=1)
        del self.conv2, self.bn2

    def forward(self, x: Tensor) -> Tensor:
        *groups, last = self.act1(self.bn1(self.conv1(x))).chunk(self.scales, dim=1)
        outputs: list[Tensor] = []
        for group, conv, bn in zip(groups, self.convs, self.bns, strict=True):
            hierarchical = self.downsample is None and outputs
            outputs.append(self.act2(bn(conv(group + outputs[-1] if hierarchical else group))))
        y = self.bn3(self.conv3(torch.cat([*outputs, self.pool(last)], dim=1)))
        return self.act3(y + (x if self.downsample is None else self.downsample(x)))


class Res2NetBottleneck14w8s(Res2NetBottleneck):
    """The same with more and narrower groups."""

    scale_width, scales = 14, 8
