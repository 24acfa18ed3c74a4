"""DDF and DDF-Up with the parameter names of the official repository (theFoxofSky/ddfnet)."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ddf_jax.torch_port.operators import Combine, dynamic_filter, dynamic_upsample

Nonlinearity = Literal["linear", "relu"]


class FilterNorm(nn.Module):
    """Normalises each generated filter to zero mean and unit deviation over its K² taps, then scales it.

    ``y = (x - mean(x)) / (std(x) + 1e-10) · α + β`` with the unbiased deviation, along the taps of each filter.

    Learned parameters are `std` (α) and `mean` (β), one value per filter and tap; otherwise α is the
    constant gain/K (gain = √2 for "relu", 1 for "linear") and β is 0. Half-precision filters are normalised in float32.

    Reference: Zhou et al., CVPR 2021, equation 3.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        nonlinearity: Nonlinearity = "linear",
        learned_std: bool = False,
        learned_mean: bool = False,
    ):
        super().__init__()
        if kernel_size < 2:
            raise ValueError(f"`kernel_size` must be at least 2 (one value has no deviation), got {kernel_size}.")
        self.filters = filters
        self.gain = {"linear": 1.0, "relu": math.sqrt(2.0)}[nonlinearity] / kernel_size
        taps = kernel_size**2
        self.std = nn.Parameter(torch.randn(filters * taps) * self.gain) if learned_std else None
        self.mean = nn.Parameter(torch.randn(filters * taps)) if learned_mean else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, filters·T, …] to the same shape and dtype; index = filter·T + tap."""
        batch, size, *rest = x.shape
        per_tap = (1, self.filters, -1, *(1 for _ in rest))
        wide = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(batch, self.filters, -1, *rest)
        centred = wide - wide.mean(2, keepdim=True)
        y = centred / (wide.std(2, correction=1, keepdim=True) + 1e-10)
        y = y * (self.gain if self.std is None else self.std.reshape(per_tap))
        if self.mean is not None:
            y = y + self.mean.reshape(per_tap)
        return y.reshape(batch, size, *rest).to(x.dtype)


class DDF(nn.Module):
    """Decoupled dynamic filter: [B, C, H, W] to [B, C, ceil(H/stride), ceil(W/stride)].

    The spatial filter of a pixel is a 1×1 convolution of the input (with the stride), the channel filter of a sample a
    squeeze of its global average; both are filter-normalised and applied by `dynamic_filter`.
    `squeeze_ratio` is the paper's σ.

    Reference: Zhou et al., CVPR 2021, section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        heads: int = 1,
        squeeze_ratio: float = 0.2,
        nonlinearity: Nonlinearity = "relu",
        combine: Combine = "mul",
    ):
        super().__init__()
        self.stride = stride
        self.dilation = dilation
        self.heads = heads
        self.combine: Combine = combine
        self.spatial_branch = _spatial_branch(in_channels, heads, kernel_size, stride, nonlinearity)
        self.channel_branch = _channel_branch(in_channels, kernel_size, squeeze_ratio, nonlinearity)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        spatial = self.spatial_branch(x)
        spatial = spatial.reshape(batch, self.heads, -1, *spatial.shape[2:])
        channel = self.channel_branch(x).reshape(batch, channels, -1)
        return dynamic_filter(x, spatial, channel, stride=self.stride, dilation=self.dilation, combine=self.combine)


class DDFUp(nn.Module):
    """The upsampling DDF: [B, C, H, W] to [B, C, S·H, S·W], with a pair of branches for each of the S² sub-pixels.

    With `guidance_channels` the spatial filters come from a second input [B, guidance_channels, H, W], otherwise from
    the input itself. A depthwise convolution of `guidance_kernel_size`, padded by half of its size, precedes them (1:
    none). Its default is 3 without a guidance and 1 with one; the official module has the opposite.

    Reference: Zhou et al., CVPR 2021, section 6.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int = 3,
        *,
        scale: int = 2,
        dilation: int = 1,
        heads: int = 1,
        squeeze_ratio: float = 0.2,
        nonlinearity: Nonlinearity = "linear",
        guidance_channels: int | None = None,
        guidance_kernel_size: int | None = None,
        combine: Combine = "mul",
    ):
        super().__init__()
        self.scale = scale
        self.dilation = dilation
        self.heads = heads
        self.combine: Combine = combine

        source = in_channels if guidance_channels is None else guidance_channels
        if guidance_kernel_size is None:
            guidance_kernel_size = 3 if guidance_channels is None else 1

        def spatial_branch() -> nn.Module:
            layers = list(_spatial_branch(source, heads, kernel_size, 1, nonlinearity))
            if guidance_kernel_size > 1:
                padding = guidance_kernel_size // 2
                layers.insert(0, nn.Conv2d(source, source, guidance_kernel_size, padding=padding, groups=source))
            return nn.Sequential(*layers)

        self.spatial_branch = nn.ModuleList(spatial_branch() for _ in range(scale**2))
        self.channel_branch = nn.ModuleList(
            _channel_branch(in_channels, kernel_size, squeeze_ratio, nonlinearity) for _ in range(scale**2)
        )

    def forward(self, x: Tensor, guidance: Tensor | None = None) -> Tensor:
        batch, channels, height, width = x.shape
        guidance = x if guidance is None else guidance
        spatial = torch.stack([branch(guidance) for branch in self.spatial_branch], dim=1)
        spatial = spatial.reshape(batch, self.scale**2, self.heads, -1, height, width)
        channel = torch.stack([branch(x) for branch in self.channel_branch], dim=1)
        channel = channel.reshape(batch, self.scale**2, channels, -1)
        return dynamic_upsample(x, spatial, channel, scale=self.scale, dilation=self.dilation, combine=self.combine)


def _spatial_branch(
    in_channels: int, heads: int, kernel_size: int, stride: int, nonlinearity: Nonlinearity
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, heads * kernel_size**2, 1, stride),
        FilterNorm(heads, kernel_size, nonlinearity=nonlinearity),
    )


def _channel_branch(
    in_channels: int, kernel_size: int, squeeze_ratio: float, nonlinearity: Nonlinearity
) -> nn.Sequential:
    squeezed = int(in_channels * squeeze_ratio)
    if squeezed < 1:
        raise ValueError(f"`squeeze_ratio` must leave a channel, got {squeeze_ratio} of {in_channels=}.")
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(in_channels, squeezed, 1),
        nn.ReLU(),
        nn.Conv2d(squeezed, in_channels * kernel_size**2, 1),
        FilterNorm(in_channels, kernel_size, nonlinearity=nonlinearity, learned_std=True),
    )
