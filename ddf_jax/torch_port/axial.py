"""Axial-ResNets with the parameter names of the official repository (csrhddlam/axial-deeplab)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ddf_jax.torch_port.resnet import Bottleneck, ResNet, SpatialOp, conv3x3


class AxialResNet(ResNet):
    """A residual network of `AxialBottleneck`s: [B, 3, H, W] to logits.

    Args:
        blocks: their number in each stage.
        width: channels of the stem; the blocks of the first stage have twice as many.
        image_size: side of the images, which decides the relative positions.
        options: of `ResNet`.

    Reference: Wang et al., Axial-DeepLab: Stand-Alone Axial-Attention for Panoptic Segmentation, ECCV 2020.
    """

    def __init__(self, blocks: Sequence[int], *, width: int = 32, image_size: int = 224, **options):
        super().__init__(AxialBottleneck, blocks, conv3x3, width=width, **options)
        length = image_size // (1 if options.get("stem") == "small" else 4)
        for stage in self.stages:
            for block in self.get_submodule(stage).children():
                assert isinstance(block, AxialBottleneck)
                inner, stride = block.conv_down.out_channels, 1 if stage == "layer1" else block.stride
                block.hight_block = AxialAttention(inner, length)
                block.width_block = AxialAttention(inner, length, stride=stride, width=True)
                length //= stride


class AxialBottleneck(Bottleneck):
    """1×1 convolution, attention along columns, attention along rows with the stride, 1×1 convolution, residual sum."""

    hight_block: nn.Module
    width_block: nn.Module

    def __init__(self, in_channels: int, width: int, stride: int, spatial_op: SpatialOp):
        super().__init__(in_channels, width, stride, spatial_op)
        self.stride = stride
        self.conv_down = nn.Conv2d(in_channels, 2 * width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(2 * width)
        self.conv_up = nn.Conv2d(2 * width, 4 * width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * width)
        del self.conv1, self.conv2, self.conv3, self.bn3

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv_down(x)))
        y = self.act2(self.width_block(self.hight_block(y)))
        y = self.bn2(self.conv_up(y))
        return self.act3(y + (x if self.downsample is None else self.downsample(x)))


class AxialAttention(nn.Module):
    """Position-sensitive attention along one axis: [B, C, H, W] to [B, C, ceil(H/stride), ceil(W/stride)].

    Maps may be smaller than the table of relative positions is made for; the official module needs this size. The last
    average of a size that the stride does not divide has fewer pixels.
    """

    heads = 8
    flatten_index: Tensor

    def __init__(self, channels: int, length: int, *, stride: int = 1, width: bool = False):
        super().__init__()
        self.depth = channels // self.heads
        self.length, self.width = length, width
        self.qkv_transform = nn.Conv1d(channels, 2 * channels, 1, bias=False)
        self.bn_qkv = nn.BatchNorm1d(2 * channels)
        self.bn_similarity = nn.BatchNorm2d(3 * self.heads)
        self.bn_output = nn.BatchNorm1d(2 * channels)
        self.relative = nn.Parameter(torch.randn(2 * self.depth, 2 * length - 1) / math.sqrt(self.depth))
        places = torch.arange(length)
        self.register_buffer("flatten_index", (places[:, None] - places + length - 1).flatten())
        self.pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        nn.init.normal_(self.qkv_transform.weight, std=channels**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        lines = x.permute(0, 2, 1, 3) if self.width else x.permute(0, 3, 1, 2)  # [B, lines, C, pixels]
        batch, count, channels, pixels = lines.shape
        qkv = self.bn_qkv(self.qkv_transform(lines.reshape(-1, channels, pixels)))
        sizes = [self.depth // 2, self.depth // 2, self.depth]
        q, k, v = qkv.reshape(-1, self.heads, 2 * self.depth, pixels).split(sizes, dim=2)

        square = (-1, self.length, self.length)
        table = self.relative[:, self.flatten_index].reshape(square)[:, :pixels, :pixels]
        rq, rk, rv = table.split(sizes)  # [depth, i, j], for the difference i - j
        terms = (
            torch.einsum("ngci,ngcj->ngij", q, k),
            torch.einsum("ngci,cij->ngij", q, rq),
            torch.einsum("ngcj,cji->ngij", k, rk),
        )
        logits = self.bn_similarity(torch.cat(terms, dim=1)).reshape(-1, 3, self.heads, pixels, pixels).sum(1)
        weights = logits.softmax(3)
        sums = (torch.einsum("ngij,ngcj->ngci", weights, v), torch.einsum("ngij,cij->ngci", weights, rv))
        pairs = torch.stack(sums, dim=3).reshape(-1, 2 * channels, pixels)
        y = self.bn_output(pairs).reshape(batch, count, channels, 2, pixels).sum(3)
        return self.pool(y.permute(0, 2, 1, 3) if self.width else y.permute(0, 2, 3, 1))
