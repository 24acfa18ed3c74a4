"""DCD-ResNets with the parameter names of the official repository (liyunsheng13/dcd)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.torch_port.resnet import Bottleneck, ResNet, SpatialOp, conv3x3


class DCDResNet(ResNet):
    """A residual network of `DCD` with a classifier of its kind: [B, 3, H, W] to logits.

    Args:
        blocks: their number in each stage.
        num_classes: outputs.
        options: of `ResNet`.

    Reference: Li et al., Revisiting Dynamic Convolution via Matrix Decomposition, ICLR 2021.
    """

    def __init__(self, blocks: Sequence[int], *, num_classes: int = 1000, **options):
        super().__init__(DCDBottleneck, blocks, conv3x3, num_classes=num_classes, **options)
        self.classifier = nn.Sequential(DCDLinear(self.fc.in_features, num_classes))
        del self.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)[-1].mean((2, 3)))


class DCDBottleneck(Bottleneck):
    """A bottleneck whose three convolutions are `DCD`s."""

    def __init__(self, in_channels: int, width: int, stride: int, spatial_op: SpatialOp):
        super().__init__(in_channels, width, stride, spatial_op)
        self.conv1 = DCD(in_channels, width, 1)
        self.conv2 = DCD(width, width, 3, stride)
        self.conv3 = DCD(width, width * self.expansion, 1)


class _Gate(nn.Module):
    """Between 0 and 2."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu6(x + 3) / 3


class _SelfGated(nn.Module):
    """A vector times a function of itself: [B, C] to [B, C]."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, channels, bias=False), _Gate())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x)


class DCD(nn.Module):
    """A convolution scaled by the sample, and a low-rank product with a matrix of the sample's own.

    [B, in_channels, H, W] to [B, out_channels, ceil(H/stride), ceil(W/stride)].
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        self.rank = math.isqrt(in_channels)
        hidden = max(in_channels // 16, 1)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.q = nn.Conv2d(in_channels, self.rank, 1, stride, bias=False)
        self.p = nn.Conv2d(self.rank, out_channels, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(self.rank), nn.BatchNorm1d(self.rank)
        self.fc = nn.Sequential(nn.Linear(in_channels, hidden, bias=False), _SelfGated(hidden))
        self.fc_phi = nn.Linear(hidden, self.rank**2, bias=False)
        self.fc_scale = nn.Linear(hidden, out_channels, bias=False)
        self.gate = _Gate()

    def forward(self, x: Tensor) -> Tensor:
        z = self.fc(x.mean((2, 3)))
        matrix = self.fc_phi(z).reshape(-1, self.rank, self.rank)
        q = self.bn1(self.q(x))
        flat = q.flatten(2)
        mixed = (self.bn2(torch.bmm(matrix, flat)) + flat).reshape(q.shape)
        return self.gate(self.fc_scale(z))[:, :, None, None] * self.conv(x) + self.p(mixed)


class DCDLinear(nn.Module):
    """The same for vectors: [B, in_channels] to [B, out_channels]."""

    rank = 32

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.cls = nn.Linear(in_channels, out_channels)
        self.cls_q = nn.Linear(in_channels, self.rank, bias=False)
        self.cls_p = nn.Linear(self.rank, out_channels, bias=False)
        self.fc = nn.Sequential(nn.Linear(in_channels, self.rank, bias=False), _SelfGated(self.rank))
        self.fc_phi = nn.Linear(self.rank, self.rank**2, bias=False)
        self.fc_scale = nn.Linear(self.rank, out_channels, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm1d(self.rank), nn.BatchNorm1d(self.rank)
        self.gate = _Gate()

    def forward(self, x: Tensor) -> Tensor:
        z = self.fc(x)
        matrix = self.fc_phi(z).reshape(-1, self.rank, self.rank)
        q = self.bn1(self.cls_q(x))
        mixed = self.bn2(torch.bmm(matrix, q[:, :, None])[:, :, 0]) + q
        return self.gate(self.fc_scale(z)) * self.cls(x) + self.cls_p(mixed)
