"""FcaNets with the parameter names of the official repository (cfzd/FcaNet)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.torch_port.resnet import Bottleneck, ResNet, SpatialOp, conv3x3

SIZES = (56, 28, 14, 7)
ROWS = (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2)
COLUMNS = (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2)


class FcaNet(ResNet):
    """A residual network with `FrequencyAttention` in each block: [B, 3, H, W] to logits.

    Args:
        blocks: their number in each stage.
        options: of `ResNet`.

    Reference: Qin et al., FcaNet: Frequency Channel Attention Networks, ICCV 2021.
    """

    def __init__(self, blocks: Sequence[int], **options):
        super().__init__(FcaBottleneck, blocks, conv3x3, **options)
        for stage, size in zip(self.stages, SIZES, strict=False):
            for block in self.get_submodule(stage).children():
                assert isinstance(block, FcaBottleneck)
                block.att = FrequencyAttention(block.conv3.out_channels, size)


class FcaBottleneck(Bottleneck):
    """A bottleneck with an attention, `att`, at the end of its residual branch."""

    att: nn.Module

    def __init__(self, in_channels: int, width: int, stride: int, spatial_op: SpatialOp):
        super().__init__(in_channels, width, stride, spatial_op)
        del self.se

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.att(self.bn3(self.conv3(y)))
        return self.act3(y + (x if self.downsample is None else self.downsample(x)))


class FrequencyAttention(nn.Module):
    """Weights the channels by a perceptron of one frequency of each: [B, C, H, W] to the same shape.

    The official module keeps its cosines in float32; these are float64, to compare with.
    """

    def __init__(self, channels: int, size: int, reduction: int = 16):
        super().__init__()
        self.dct_layer = Cosines(channels, size)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(self.dct_layer(x))[:, :, None, None]


class Cosines(nn.Module):
    """The sum of each map weighted by its channel's cosines: [B, C, H, W] to [B, C]."""

    weight: Tensor

    def __init__(self, channels: int, size: int):
        super().__init__()
        maps = [
            _wave(row * (size // 7), size)[:, None] * _wave(column * (size // 7), size)
            for row, column in zip(ROWS, COLUMNS, strict=True)
        ]
        self.register_buffer("weight", torch.stack(maps).repeat_interleave(channels // len(maps), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(x, self.weight.shape[-1])
        return (pooled * self.weight.to(x.dtype)).sum((2, 3))


def _wave(frequency: int, size: int) -> Tensor:
    places = torch.arange(size, dtype=torch.float64) + 0.5
    return torch.cos(math.pi * frequency * places / size) * math.sqrt((2 if frequency else 1) / size)
