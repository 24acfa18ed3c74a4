"""ResNets, plain and with DDF, with timm's parameter names."""

import fnmatch
import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from ddf_jax.torch_port.ddf import DDF

# Makes what stands where a 3×3 convolution stood, from (in_channels, out_channels, stride).
SpatialOp = Callable[[int, int, int], nn.Module]

_BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECK = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def create(name: str, *, num_classes: int = 1000, **options) -> "ResNet":
    """The network of that name (`list_models()`), with freshly initialised parameters in float32.

    Names are those of the JAX registry; `ddf_resnet50` is the official repository's `ddf_mul_resnet50`, the same module
    as that repository's in names, parameters and values. `options` are those of `ResNet`, and `squeeze_ratio` for DDF.

    Raises:
      ValueError: no network has that name.
    """
    if name not in _MODELS:
        raise ValueError(f"no port is named {name!r}; there are {', '.join(_MODELS)}.")
    return _MODELS[name](num_classes=num_classes, **options)


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create` takes and the shell pattern matches."""
    return fnmatch.filter(_MODELS, pattern)


class ResNet(nn.Module):
    """Residual network of four stages: [B, 3, H, W] to logits [B, num_classes].

    Args:
      block: `BasicBlock` or `Bottleneck`.
      depths: blocks in each stage; widths are 64, 128, 256, 512 times the block's expansion.
      spatial_op: what stands in the blocks where a 3×3 convolution stood.
      num_classes: outputs.
      stem: "imagenet" is a 7×7 convolution of stride 2 and a max-pool, "small" a 3×3 convolution of stride 1.

    Reference: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; stride on the 3×3 convolution.
    """

    def __init__(
        self,
        block: type["BasicBlock"] | type["Bottleneck"],
        depths: Sequence[int],
        spatial_op: SpatialOp,
        *,
        num_classes: int = 1000,
        stem: Literal["imagenet", "small"] = "imagenet",
    ):
        super().__init__()
        small = stem == "small"
        self.conv1 = _conv(3, 64, 3) if small else _conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.act1 = nn.ReLU()
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        expansion = block.expansion

        def stage(in_channels: int, width: int, depth: int, stride: int) -> nn.Sequential:
            rest = [block(width * expansion, width, 1, spatial_op) for _ in range(depth - 1)]
            return nn.Sequential(block(in_channels, width, stride, spatial_op), *rest)

        self.layer1 = stage(64, 64, depths[0], 1)
        self.layer2 = stage(64 * expansion, 128, depths[1], 2)
        self.layer3 = stage(128 * expansion, 256, depths[2], 2)
        self.layer4 = stage(256 * expansion, 512, depths[3], 2)
        self.fc = nn.Linear(512 * expansion, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(x.mean((2, 3)))


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

    def __init__(self, in_channels: int, width: int, stride: int, spatial_op: SpatialOp):
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = _conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = spatial_op(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU()
        self.conv3 = _conv(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.act3 = nn.ReLU()
        self.downsample = _downsample(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.act2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.act3(y + (x if self.downsample is None else self.downsample(x)))


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


def _conv3x3(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return _conv(in_channels, out_channels, 3, stride)


def _resnet(depth: int, **options) -> ResNet:
    if depth in _BASIC:
        return ResNet(BasicBlock, _BASIC[depth], _conv3x3, **options)
    return ResNet(Bottleneck, _BOTTLENECK[depth], _conv3x3, **options)


def _ddf_resnet(depth: int, *, combine: Literal["mul", "add"], squeeze_ratio: float | None = None, **options) -> ResNet:
    basic = depth in _BASIC
    if squeeze_ratio is None:
        squeeze_ratio = 0.5 if basic else 0.2

    def ddf(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        del out_channels  # equal in a bottleneck, and what a DDF keeps
        return DDF(in_channels, stride=stride, squeeze_ratio=squeeze_ratio, combine=combine)

    def ddf_pointwise(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        # A basic block's 3×3 convolution also mixes channels, which DDF does not.
        # No code of this network was published: the layout and σ = 0.5 are those that count the paper's 7.7 M
        # parameters, and the three names are this project's.
        layers = {
            "ddf": DDF(in_channels, stride=stride, squeeze_ratio=squeeze_ratio, combine=combine),
            "bn": nn.BatchNorm2d(in_channels),
            "pointwise": _conv(in_channels, out_channels, 1),
        }
        return nn.Sequential(OrderedDict(layers))

    if basic:
        return ResNet(BasicBlock, _BASIC[depth], ddf_pointwise, **options)
    return ResNet(Bottleneck, _BOTTLENECK[depth], ddf, **options)


_MODELS: dict[str, Callable[..., ResNet]] = {
    **{f"resnet{depth}": functools.partial(_resnet, depth) for depth in sorted(_BASIC | _BOTTLENECK)},
    **{f"ddf_resnet{d}": functools.partial(_ddf_resnet, d, combine="mul") for d in (18, 26, 38, 50, 101, 152)},
    **{f"ddf_add_resnet{d}": functools.partial(_ddf_resnet, d, combine="add") for d in (50, 101, 152)},
}
