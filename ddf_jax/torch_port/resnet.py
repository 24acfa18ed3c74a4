"""ResNets, plain and with DDF, with timm's parameter names."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from ddf_jax.torch_port.ddf import DDF

# Makes a drop-in replacement for a 3×3 convolution from (in_channels, out_channels, stride).
SpatialOp = Callable[[int, int, int], nn.Module]

BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ResNet(nn.Module):
    """Residual network: [B, in_channels, H, W] to logits [B, num_classes].

    Args:
        block: `BasicBlock` or `Bottleneck`.
        blocks: their number in each stage. Stages are `layer1`, `layer2`, …, each twice as wide as the previous one.
        spatial_op: drop-in replacement for the 3×3 convolutions of the blocks.
        num_classes: outputs.
        in_channels: channels of the images.
        width: channels of the stem and of the first stage.
        stem: "imagenet" is a 7×7 convolution of stride 2 and a max-pool, "small" a 3×3 convolution of stride 1.

    Reference: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; stride on the 3×3 convolution.
    """

    def __init__(
        self,
        block: type["BasicBlock"] | type["Bottleneck"],
        blocks: Sequence[int],
        spatial_op: SpatialOp,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: int = 64,
        stem: Literal["imagenet", "small"] = "imagenet",
    ):
        super().__init__()
        if stem not in ("imagenet", "small"):
            raise ValueError(f"`stem` must be 'imagenet' or 'small', got {stem!r}.")
        small = stem == "small"
        self.conv1 = _conv(in_channels, width, 3) if small else _conv(in_channels, width, 7, 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)

        channels = width
        self.stages = [f"layer{stage + 1}" for stage in range(len(blocks))]
        for name, depth in zip(self.stages, blocks, strict=True):
            layers = []
            for index in range(depth):
                stride = 2 if index == 0 and name != "layer1" else 1
                layers.append(block(channels, width, stride, spatial_op))
                channels = width * block.expansion
            self.add_module(name, nn.Sequential(*layers))
            width *= 2
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x)[-1].mean((2, 3)))

    def features(self, x: Tensor) -> list[Tensor]:
        """The output of each stage, the finest first: [B, C, H, W] each."""
        x = self.maxpool(self._stem(x))
        outputs = []
        for name in self.stages:
            x = self.get_submodule(name)(x)
            outputs.append(x)
        return outputs

    def _stem(self, x: Tensor) -> Tensor:
        return self.act1(self.bn1(self.conv1(x)))


class BasicBlock(nn.Module):
    """Two spatial operators, each followed by BatchNorm, and the residual sum."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, spatial_op: SpatialOp):
        super().__init__()
        self.conv1 = spatial_op(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = spatial_op(width, width, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU()
        self.downsample = _downsample(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.act2(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1×1 convolution, spatial operator with the stride, 1×1 convolution to 4·width, and the residual sum."""

    expansion = 4
    inner_ratio = 1

    def __init__(self, in_channels: int, width: int, stride: int, spatial_op: SpatialOp):
        super().__init__()
        inner, out_channels = width * self.inner_ratio, width * self.expansion
        self.conv1 = _conv(in_channels, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.act1 = nn.ReLU()
        self.conv2 = spatial_op(inner, inner, stride)
        self.bn2 = nn.BatchNorm2d(inner)
        self.act2 = nn.ReLU()
        self.conv3 = _conv(inner, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.se: nn.Module = nn.Identity()
        self.act3 = nn.ReLU()
        self.downsample = _downsample(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.se(self.bn3(self.conv3(y)))
        return self.act3(y + (x if self.downsample is None else self.downsample(x)))


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


def conv3x3(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return _conv(in_channels, out_channels, 3, stride)


def _resnet(depth: int, *, blocks: Sequence[int] | None = None, **options) -> ResNet:
    return _build(depth, blocks, conv3x3, options)


def _ddf_resnet(
    depth: int,
    *,
    combine: Literal["mul", "add"],
    squeeze_ratio: float | None = None,
    blocks: Sequence[int] | None = None,
    **options,
) -> ResNet:
    basic = depth in BASIC
    if squeeze_ratio is None:
        squeeze_ratio = 0.5 if basic else 0.2

    def ddf(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        del out_channels  # equal to the inputs in a bottleneck; a DDF keeps them
        return DDF(in_channels, stride=stride, squeeze_ratio=squeeze_ratio, combine=combine)

    def ddf_pointwise(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        # A basic block's 3×3 convolution also mixes channels, which DDF does not.
        # No code of this network was published. The layout and σ = 0.5 give the paper's 7.7 M parameters; the three
        # names are this project's.
        layers = {
            "ddf": ddf(in_channels, in_channels, stride),
            "bn": nn.BatchNorm2d(in_channels),
            "pointwise": _conv(in_channels, out_channels, 1),
        }
        return nn.Sequential(OrderedDict(layers))

    return _build(depth, blocks, ddf_pointwise if basic else ddf, options)


def _build(depth: int, blocks: Sequence[int] | None, spatial_op: SpatialOp, options: dict[str, Any]) -> ResNet:
    block, usual = (BasicBlock, BASIC[depth]) if depth in BASIC else (Bottleneck, BOTTLENECK[depth])
    return ResNet(block, usual if blocks is None else blocks, spatial_op, **options)


MODELS: dict[str, Callable[..., ResNet]] = {
    **{f"resnet{depth}": functools.partial(_resnet, depth) for depth in sorted(BASIC | BOTTLENECK)},
    **{f"ddf_resnet{d}": functools.partial(_ddf_resnet, d, combine="mul") for d in (18, 26, 38, 50, 101, 152)},
    **{f"ddf_add_resnet{d}": functools.partial(_ddf_resnet, d, combine="add") for d in (50, 101, 152)},
}
