"""Semantic segmentation from a pyramid, with MMDetection's names: HTC's branch and Panoptic FPN's."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from ddf_jax.torch_port.detection.layers import conv_module

IGNORED = 255
"""The label of pixels without a class. They count in the mean of a loss, with 0."""


class FusedSemanticHead(nn.Module):
    """P2 to P6 to logits and features at P3's size: [B, K, H, W] and [B, C, H, W].

    Reference: Chen et al., Hybrid Task Cascade for Instance Segmentation, CVPR 2019.
    """

    stride = 8

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.lateral_convs = nn.ModuleList(conv_module(channels, channels, 1) for _ in range(5))
        self.convs = nn.ModuleList(conv_module(channels, channels, 3) for _ in range(4))
        self.conv_embedding = conv_module(channels, channels, 1)
        self.conv_logits = nn.Conv2d(channels, num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        size = list(levels[1].shape[2:])
        x = self.lateral_convs[1](levels[1])
        for level in (0, 2, 3, 4):
            resized = functional.interpolate(levels[level], size=size, mode="bilinear", align_corners=True)
            x = x + self.lateral_convs[level](resized)
        for conv in self.convs:
            x = conv(x)
        return self.conv_logits(x), self.conv_embedding(x)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of labels [B, H, W] of the images."""
        return 0.2 * _cross_entropy(logits, labels[:, :: self.stride, :: self.stride])


class PanopticFPNHead(nn.Module):
    """P2 to P5 to logits at P2's size [B, stuff + 1, H, W]; the last class is every thing.

    Reference: Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019.
    """

    stride = 4

    def __init__(self, channels: int, num_things: int, num_stuff: int, inner_channels: int = 128):
        super().__init__()
        self.num_things = num_things
        self.num_stuff = num_stuff
        self.conv_upsample_layers = nn.ModuleList(
            _ConvUpsample(channels, inner_channels, doublings) for doublings in range(4)
        )
        self.conv_logits = nn.Conv2d(inner_channels, num_stuff + 1, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        maps = [layer(x) for layer, x in zip(self.conv_upsample_layers, levels, strict=False)]
        return self.conv_logits(sum(maps[1:], start=maps[0]))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of labels [B, H, W] of the images: things first, then stuff."""
        labels = labels[:, :: self.stride, :: self.stride]
        stuff = labels - self.num_things
        is_thing = labels < self.num_things
        labels = stuff.masked_fill(is_thing, self.num_stuff).masked_fill(labels == IGNORED, IGNORED)
        return 0.5 * _cross_entropy(logits, labels)

    def segment(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits at the size of the batch (height, width)."""
        return functional.interpolate(logits, size=list(size), mode="bilinear", align_corners=False)


class _ConvUpsample(nn.Module):
    """3×3 convolutions with GroupNorm, each followed by bilinear doubling; one without if there is no doubling."""

    def __init__(self, in_channels: int, channels: int, doublings: int):
        super().__init__()
        self.doublings = doublings
        widths = [in_channels] + [channels] * (max(doublings, 1) - 1)
        self.conv = nn.ModuleList(conv_module(width, channels, 3, norm_groups=32) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.conv:
            x = conv(x)
            if self.doublings:
                x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return x


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none").mean()
