"""SANs with the parameter names of the official repository (hszhao/SAN)."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Relation = Literal["pairwise", "patchwise"]


class SAM(nn.Module):
    """Self-attention on the K×K neighbourhood of each pixel: [B, in_channels, H, W] to [B, C/G, G, H, W].

    Channel j·G + g of the C = out_channels values has the filter of group g, and j counts the channels of the group.

    Reference: Zhao et al., Exploring Self-attention for Image Recognition, CVPR 2020.
    """

    def __init__(self, relation: Relation, in_channels: int, related: int, out_channels: int, kernel_size: int):
        super().__init__()
        self.kernel_size, self.groups = kernel_size, out_channels // 8
        self.conv1 = nn.Conv2d(in_channels, related, 1)
        self.conv2 = nn.Conv2d(in_channels, related, 1)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)
        self.is_pairwise = relation == "pairwise"
        if self.is_pairwise:
            self.conv_p = nn.Conv2d(2, 2, 1)
            sizes = related + 2, related, self.groups
        else:
            sizes = related * (1 + kernel_size**2), self.groups, self.groups * kernel_size**2
        self.conv_w = nn.Sequential(
            nn.BatchNorm2d(sizes[0]),
            nn.ReLU(),
            nn.Conv2d(sizes[0], sizes[1], 1, bias=False),
            nn.BatchNorm2d(sizes[1]),
            nn.ReLU(),
            nn.Conv2d(sizes[1], sizes[2], 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, width = len(x), x.shape[3]
        query, key, value = self.conv1(x), self.conv2(x), self.conv3(x)
        if self.is_pairwise:
            place = self.conv_p(_positions(x)).expand(batch, -1, -1, -1)
            difference = torch.cat([query, place], 1)[..., None] - self._windows(torch.cat([key, place], 1))
            filters = self.conv_w(difference.flatten(3)).unflatten(3, (width, -1)).softmax(-1)
        else:
            keys = self._windows(key).movedim(-1, 2).flatten(1, 2)
            filters = self.conv_w(torch.cat([query, keys], 1)).unflatten(1, (self.groups, -1)).movedim(2, -1)
        values = self._windows(value).unflatten(1, (-1, self.groups))
        return (filters[:, None] * values).sum(-1)

    def _windows(self, x: Tensor) -> Tensor:
        """The pixels that each pixel sees, row by row: [B, C, H, W] to [B, C, H, W, K²]."""
        padded = functional.pad(x, [self.kernel_size // 2] * 4, mode="reflect")
        return padded.unfold(2, self.kernel_size, 1).unfold(3, self.kernel_size, 1).flatten(-2)


def _positions(x: Tensor) -> Tensor:
    """Column and row of each pixel of [B, C, H, W], both from -1 to 1: [1, 2, H, W]."""
    rows, columns = (torch.linspace(-1, 1, length, dtype=x.dtype, device=x.device) for length in x.shape[2:])
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"))[None]


class Bottleneck(nn.Module):
    """Normalisation and ReLU before the self-attention and before the 1×1 convolution, and the residual sum."""

    def __init__(self, relation: Relation, channels: int, kernel_size: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.sam = SAM(relation, channels, channels // 16, channels // 4, kernel_size)
        self.bn2 = nn.BatchNorm2d(channels // 4)
        self.conv = nn.Conv2d(channels // 4, channels, 1)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.sam(self.act1(self.bn1(x))).flatten(1, 2)
        return x + self.conv(self.act2(self.bn2(y)))


class SAN(nn.Module):
    """A network of self-attention modules: [B, in_channels, H, W] to logits [B, num_classes].

    Args:
        relation: of the modules.
        blocks: their number in `layer1`, `layer2`, …; the first has 4·width channels, each next one twice as many.
        stem_blocks: their number in `layer0`, of `width` channels.
        num_classes: outputs.
        in_channels: channels of the images.
        width: channels of the stem.
        stem: "small" has no pooling before `layer0`.
        kernel_size: of the modules.
        stem_kernel_size: of those in `layer0`.

    Reference: Zhao et al., Exploring Self-attention for Image Recognition, CVPR 2020.
    """

    def __init__(
        self,
        relation: Relation,
        blocks: Sequence[int],
        stem_blocks: int,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: int = 64,
        stem: Literal["imagenet", "small"] = "imagenet",
        kernel_size: int = 7,
        stem_kernel_size: int = 3,
    ):
        super().__init__()
        self.conv_in, self.bn_in = nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.act_in, self.pool = nn.ReLU(), nn.MaxPool2d(2)
        self.pooled_stem = stem == "imagenet"
        before, channels = width, width
        self.stages = range(1 + len(blocks))
        for stage, depth in zip(self.stages, (stem_blocks, *blocks), strict=True):
            size = kernel_size if stage else stem_kernel_size
            self.add_module(f"conv{stage}", nn.Conv2d(before, channels, 1, bias=False))
            layers = [Bottleneck(relation, channels, size) for _ in range(depth)]
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
            self.add_module(f"bn{stage}", nn.BatchNorm2d(channels))
            self.add_module(f"act{stage}", nn.ReLU())
            before, channels = channels, channels * (2 if stage else 4)
        self.fc = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act_in(self.bn_in(self.conv_in(x)))
        for stage in self.stages:
            x = self.pool(x) if stage or self.pooled_stem else x
            for layer in ("conv", "layer", "bn", "act"):
                x = self.get_submodule(f"{layer}{stage}")(x)
        return self.fc(x.mean((2, 3)))


_DEPTHS = {10: ((1, 2, 4, 1), 2), 15: ((2, 3, 5, 2), 3), 19: ((3, 4, 6, 3), 3)}


def _san(
    depth: int, relation: Relation, *, blocks: Sequence[int] | None = None, stem_blocks: int | None = None, **options
) -> SAN:
    usual, in_stem = _DEPTHS[depth]
    return SAN(
        relation, usual if blocks is None else blocks, in_stem if stem_blocks is None else stem_blocks, **options
    )


MODELS: dict[str, Callable[..., SAN]] = {
    **{f"san{depth}": functools.partial(_san, depth, "pairwise") for depth in _DEPTHS},
    **{f"san{depth}_patchwise": functools.partial(_san, depth, "patchwise") for depth in _DEPTHS},
}
