"""The dynamic filter, written as a weighted sum over the columns of `unfold`."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Combine = Literal["mul", "add"]


def dynamic_filter(
    x: Tensor,
    spatial: Tensor | None,
    channel: Tensor | None,
    *,
    stride: int = 1,
    dilation: int = 1,
    combine: Combine = "mul",
) -> Tensor:
    """Filters every pixel with its own filter, every channel with its own, or with both combined.

    ``y[b,c,p] = sum over t of (spatial[b,g(c),t,p] ∘ channel[b,c,t]) · x[b, c, stride·p + dilation·(t - centre)]``

    with zeros outside the image, ∘ = × or +, and g(c) = c // (C/G).

    Args:
        x: [B, C, H, W].
        spatial: [B, G, T, Ho, Wo], a filter of T = K·K taps (row-major, K odd) for each output pixel and group, or
            None.
        channel: [B, C, T], a filter for each sample and channel, or None; None is the neutral filter, both None an
            error.
        stride: pixels of `x` between two of `y`; Ho = ceil(H / stride), Wo = ceil(W / stride).
        dilation: pixels between two taps.
        combine: how the two filters become one.

    Returns:
        [B, C, Ho, Wo] in the dtype of `x`. Filters are combined and sums kept in float32 (float64 where an input is).

    Raises:
        ValueError: a shape, size or option breaks one of the rules above.

    Reference: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, equations 1 and 2.
    """
    taps, groups = _check(x, spatial, channel, stride, dilation, combine)
    kernel_size = round(taps**0.5)
    batch, channels, height, width = x.shape
    out_size = (-(-height // stride), -(-width // stride))
    compute = torch.float32
    for tensor in (x, spatial, channel):
        compute = compute if tensor is None else torch.promote_types(compute, tensor.dtype)

    columns = functional.unfold(x.to(compute), kernel_size, dilation, dilation * (kernel_size // 2), stride)
    columns = columns.reshape(batch, groups, channels // groups, taps, *out_size)
    if spatial is None:
        assert channel is not None
        filters = channel.to(compute).reshape(batch, 1, channels, taps, 1, 1)
    else:
        filters = spatial.to(compute).unsqueeze(2)
        if channel is not None:
            per_channel = channel.to(compute).reshape(batch, groups, channels // groups, taps, 1, 1)
            filters = filters * per_channel if combine == "mul" else filters + per_channel
    return (columns * filters).sum(3).reshape(batch, channels, *out_size).to(x.dtype)


def dynamic_upsample(
    x: Tensor,
    spatial: Tensor | None,
    channel: Tensor | None,
    *,
    scale: int,
    dilation: int = 1,
    combine: Combine = "mul",
) -> Tensor:
    """Filters every pixel with S² filters, one for each of the S×S pixels that take its place.

    Sub-pixel s = i·S + j is ``dynamic_filter(x, spatial[:, s], channel[:, s])``; it lands at row S·h + i and column
    S·w + j, the order of `pixel_shuffle`.

    Args:
        x: [B, C, H, W].
        spatial: [B, S², G, T, H, W] or None.
        channel: [B, S², C, T] or None; both None is an error.
        scale: S ≥ 1.
        dilation: pixels of `x` between two taps.
        combine: how the two filters become one.

    Returns:
        [B, C, S·H, S·W] in the dtype of `x`.

    Raises:
        ValueError: the filters are not S² per pixel, or a rule of `dynamic_filter` is broken.

    Reference: Zhou et al., CVPR 2021, section 3.3; without `channel` it is CARAFE (Wang et al., ICCV 2019).
    """
    for name, filters, rank in (("spatial", spatial, 6), ("channel", channel, 4)):
        if filters is not None and (filters.ndim != rank or filters.shape[1] != scale**2):
            raise ValueError(
                f"`{name}` must have {rank} axes and scale² = {scale**2} along axis 1, got {tuple(filters.shape)}."
            )
    sub_pixels = []
    for s in range(scale**2):
        filters = [None if value is None else value[:, s] for value in (spatial, channel)]
        sub_pixels.append(dynamic_filter(x, *filters, dilation=dilation, combine=combine))
    return functional.pixel_shuffle(torch.stack(sub_pixels, dim=2).flatten(1, 2), scale)


def _check(
    x: Tensor, spatial: Tensor | None, channel: Tensor | None, stride: int, dilation: int, combine: str
) -> tuple[int, int]:
    """Raises for a wrong call; returns the numbers of taps and of groups."""
    if combine not in ("mul", "add"):
        raise ValueError(f"`combine` must be 'mul' or 'add', got {combine!r}.")
    if stride < 1 or dilation < 1:
        raise ValueError(f"`stride` and `dilation` must be at least 1, got {stride=} and {dilation=}.")
    if x.ndim != 4:
        raise ValueError(f"`x` must be [B, C, H, W], got {tuple(x.shape)}.")
    if spatial is None and channel is None:
        raise ValueError("`spatial` and `channel` must not both be None.")
    if spatial is not None and spatial.ndim != 5:
        raise ValueError(f"`spatial` must be [B, G, T, Ho, Wo], got {tuple(spatial.shape)}.")
    if channel is not None and channel.ndim != 3:
        raise ValueError(f"`channel` must be [B, C, T], got {tuple(channel.shape)}.")

    batch, channels, height, width = x.shape
    groups = 1 if spatial is None else spatial.shape[1]
    taps = channel.shape[2] if spatial is None else spatial.shape[2]  # pyright: ignore[reportOptionalMemberAccess]
    if taps % 2 == 0 or round(taps**0.5) ** 2 != taps:
        raise ValueError(f"The number of taps must be K² for an odd K, got {taps}.")
    if groups == 0 or channels % groups:
        raise ValueError(f"The groups of `spatial` must divide the channels of `x`, got {groups=} and {channels=}.")
    expected = (batch, groups, taps, -(-height // stride), -(-width // stride))
    if spatial is not None and tuple(spatial.shape) != expected:
        raise ValueError(
            f"`spatial` must be [B, G, T, ceil(H/stride), ceil(W/stride)] = {expected}, got {tuple(spatial.shape)}."
        )
    if channel is not None and tuple(channel.shape) != (batch, channels, taps):
        raise ValueError(f"`channel` must be [B, C, T] = {(batch, channels, taps)}, got {tuple(channel.shape)}.")
    return taps, groups
