"""Neighbourhood attention transformers with the names of SHI-Labs/Neighborhood-Attention-Transformer."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


class NAT(nn.Module):
    """Neighbourhood attention transformer: [B, in_channels, H, W] to logits [B, num_classes].

    Every module takes and gives [B, C, H, W]; the official ones, of the same parameters, have channels last.

    Args:
        blocks: their number in each stage. Stages are `levels.0` and so on, each twice as wide as the previous one.
        width: channels of the first stage.
        head_channels: of every head of attention.
        mlp_ratio: hidden units for each channel.
        kernel_size: of the neighbourhoods.
        stem: "imagenet" is two 3×3 convolutions of stride 2, "small" one of stride 1.
        in_channels: channels of the images.
        num_classes: outputs.

    Reference: Hassani et al., Neighborhood Attention Transformer, CVPR 2023.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        width: int = 64,
        head_channels: int = 32,
        mlp_ratio: float = 3.0,
        kernel_size: int = 7,
        stem: Literal["imagenet", "small"] = "imagenet",
        in_channels: int = 3,
        num_classes: int = 1000,
    ):
        super().__init__()
        self.patch_embed = PatchEmbedding(in_channels, width, stem)
        self.levels = nn.ModuleList()
        for stage, depth in enumerate(blocks):
            channels = width * 2**stage
            layers = [Block(channels, channels // head_channels, mlp_ratio, kernel_size) for _ in range(depth)]
            self.levels.append(Level(layers, Downsample(channels) if stage < len(blocks) - 1 else nn.Identity()))
        self.norm = ChannelNorm(width * 2 ** (len(blocks) - 1))
        self.head = nn.Linear(width * 2 ** (len(blocks) - 1), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for level in self.levels:
            x = level(x)
        return self.head(self.norm(x).mean((2, 3)))


class PatchEmbedding(nn.Module):
    """The stem: 3×3 convolutions and layer normalisation."""

    def __init__(self, in_channels: int, width: int, stem: str):
        super().__init__()
        if stem not in ("imagenet", "small"):
            raise ValueError(f"`stem` must be 'imagenet' or 'small', got {stem!r}.")
        convs = [nn.Conv2d(in_channels, width, 3, 1, 1)]
        if stem == "imagenet":
            convs = [nn.Conv2d(in_channels, width // 2, 3, 2, 1), nn.Conv2d(width // 2, width, 3, 2, 1)]
        self.proj = nn.Sequential(*convs)
        self.norm = ChannelNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class Level(nn.Module):
    """A stage, and the convolution that halves the resolution behind all stages but the last."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.blocks(x))


class Downsample(nn.Module):
    """3×3 convolution of stride 2 to twice the channels, and layer normalisation."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduction = nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=False)
        self.norm = ChannelNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x))


class Block(nn.Module):
    """Attention and a perceptron, each after a normalisation and with a residual sum."""

    def __init__(self, channels: int, heads: int, mlp_ratio: float, kernel_size: int):
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.attn = NeighborhoodAttention(channels, heads, kernel_size)
        self.norm2 = ChannelNorm(channels)
        self.mlp = Perceptron(channels, int(channels * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Perceptron(nn.Module):
    """Two linear layers of each pixel, with a GELU between them."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = ChannelLinear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = ChannelLinear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class NeighborhoodAttention(nn.Module):
    """Attention of each pixel to the K×K pixels nearest to it inside the image: [B, C, H, W] to the same shape.

    Images smaller than K·dilation get zeros at the right and bottom.
    """

    def __init__(self, channels: int, heads: int, kernel_size: int = 7, dilation: int = 1):
        super().__init__()
        self.heads, self.kernel_size, self.dilation = heads, kernel_size, dilation
        self.qkv = ChannelLinear(channels, 3 * channels)
        self.rpb = nn.Parameter(0.02 * torch.randn(heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
        self.proj = ChannelLinear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        window = self.kernel_size * self.dilation
        x = functional.pad(x, (0, max(window - width, 0), 0, max(window - height, 0)))
        batch, channels, *sides = x.shape
        q, k, v = self.qkv(x).reshape(batch, 3, self.heads, channels // self.heads, *sides).unbind(1)
        rows, columns = (self._neighbours(side) for side in sides)  # [H, K] and [W, K]
        windows = (..., rows[:, None, :, None], columns[None, :, None, :])
        offsets = [
            (near - torch.arange(len(near))[:, None]) // self.dilation + self.kernel_size - 1
            for near in (rows, columns)
        ]
        bias = self.rpb[:, offsets[0][:, None, :, None], offsets[1][None, :, None, :]]
        logits = torch.einsum("bgdhw,bgdhwij->bghwij", q, k[windows])
        logits = logits * q.shape[2] ** -0.5 + bias
        weights = logits.flatten(-2).softmax(-1).reshape(logits.shape)
        y = torch.einsum("bghwij,bgdhwij->bgdhw", weights, v[windows])
        return self.proj(y.reshape(batch, channels, *sides)[:, :, :height, :width])

    def _neighbours(self, length: int) -> Tensor:
        """The pixels in the window of each position along an axis: [length, K]."""
        found = []
        for position in range(length):
            # The pixels a multiple of the dilation apart, and the K of them in which the position is in the middle.
            alike = range(position % self.dilation, length, self.dilation)
            middle = position // self.dilation
            start = min(max(middle - self.kernel_size // 2, 0), len(alike) - self.kernel_size)
            found.append(list(alike)[start : start + self.kernel_size])
        return torch.tensor(found)


class ChannelLinear(nn.Linear):
    """Linear layer of the channels of every pixel: [B, C, H, W] to [B, out, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of the channels of every pixel: [B, C, H, W] to the same shape."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def _nat(depths: Sequence[int], *, blocks: Sequence[int] | None = None, **options) -> NAT:
    return NAT(depths if blocks is None else blocks, **options)


MODELS: dict[str, Callable[..., NAT]] = {
    "nat_mini": functools.partial(_nat, (3, 4, 6, 5)),
    "nat_tiny": functools.partial(_nat, (3, 4, 18, 5)),
}
