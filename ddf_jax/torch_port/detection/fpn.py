"""The feature pyramid with MMDetection's names."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.torch_port.detection.layers import conv_module, involution

Neck = Literal["convolution", "involution"]


class FPN(nn.Module):
    """Stages of a backbone, [B, C, H, W] each and the finest first, to five levels with equal channels.

    With `extra_convolutions` the levels after the coarsest stage are 3×3 convolutions of stride 2, the first of that
    stage; without, every second pixel of the previous level.

    Reference: Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int, *, extra_convolutions: bool, op: Neck = "convolution"
    ):
        super().__init__()
        self.extra_levels = 5 - len(in_channels)
        self.lateral_convs = nn.ModuleList(conv_module(width, channels, 1, relu=False) for width in in_channels)
        self.fpn_convs = nn.ModuleList(
            involution(channels) if op == "involution" else conv_module(channels, channels, 3, relu=False)
            for _ in in_channels
        )
        if extra_convolutions:
            widths = [in_channels[-1]] + [channels] * (self.extra_levels - 1)
            self.fpn_convs.extend(conv_module(width, channels, 3, stride=2, relu=False) for width in widths)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        sums = [lateral(x) for lateral, x in zip(self.lateral_convs, stages, strict=True)]
        for level in reversed(range(len(sums) - 1)):
            size = list(sums[level].shape[2:])
            sums[level] = sums[level] + functional.interpolate(sums[level + 1], size=size, mode="nearest")
        levels = [conv(x) for conv, x in zip(self.fpn_convs, sums, strict=False)]
        coarsest = stages[-1]
        for level in range(len(sums), len(sums) + self.extra_levels):
            extra = level < len(self.fpn_convs)
            coarsest = self.fpn_convs[level](coarsest) if extra else levels[-1][:, :, ::2, ::2]
            levels.append(coarsest)
        return levels
