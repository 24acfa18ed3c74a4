"""The static options of a dynamic filter and its shape rules."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from jax import Array

Combine = Literal["mul", "add"]
"""How the spatial and the channel filter make one: their product or their sum."""
Normalize = Literal["softmax", "filter_norm"]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


@dataclasses.dataclass(frozen=True, init=False)
class FilterSpec:
    """The options that may change the result.

    One form serves all public operators: `dynamic_filter` has ``scale=1`` and `dynamic_upsample` has ``stride=1``.
    Every implementation takes

        x        [B, H, W, C]
        spatial  [B, Ho, Wo, S², G, T] or None
        channel  [B, S², T, C] or None          (not both None)

    and returns ``y [B, S·Ho, S·Wo, C]`` in the dtype of x.

    Args:
      kernel_size: (Kh, Kw). Here and below an int stands for two equal ones.
      stride: pixels of x between neighbouring positions of the filter.
      scale: S, the upsampling factor.
      dilation: pixels of x between neighbouring taps.
      combine: how a spatial and a channel filter make one.
      padding: zeros around x, ((top, bottom), (left, right)). None for `same_padding`.
      factor: multiplies the result.
      normalize: the spatial filter is made from the given one by a normalisation over its taps: `softmax`, or
        `filter_norm`, which gives it mean 0 and deviation gain/√T.
      gain: of `filter_norm`.
    """

    kernel_size: Pair
    stride: Pair
    scale: int
    dilation: Pair
    combine: Combine
    padding: Padding
    factor: float
    normalize: Normalize | None
    gain: float

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        scale: int = 1,
        dilation: int | Sequence[int] = 1,
        combine: Combine = "mul",
        padding: Sequence[Sequence[int]] | None = None,
        factor: float = 1.0,
        normalize: Normalize | None = None,
        gain: float = 1.0,
    ):
        kernel_size, dilation = _pair(kernel_size), _pair(dilation)
        values = {
            "kernel_size": kernel_size,
            "stride": _pair(stride),
            "scale": scale,
            "dilation": dilation,
            "combine": combine,
            "padding": same_padding(kernel_size, dilation) if padding is None else tuple(map(_pair, padding)),
            "factor": factor,
            "normalize": normalize,
            "gain": gain,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def without_normalization(self) -> "FilterSpec":
        """The same for a spatial filter that is used as it is."""
        return dataclasses.replace(self, normalize=None, gain=1.0)

    def filter_norm_factor(self, deviation: Array) -> Array:
        """What a centred filter of this deviation is multiplied by, with the 10⁻¹⁰ of the code of Zhou et al."""
        return self.gain / self.taps**0.5 / (deviation + 1e-10)

    @property
    def taps(self) -> int:
        """T = Kh·Kw, the number of filter values per output."""
        rows, columns = self.kernel_size
        return rows * columns

    @property
    def span(self) -> Pair:
        """The pixels from the first to the last tap, along both axes: dilation·(K - 1)."""
        return _span(self.kernel_size, self.dilation)

    @property
    def origin(self) -> Pair:
        """From a position's first pixel, stride·p, up and left to the pixel under its first tap: the padding there."""
        (top, _), (left, _) = self.padding
        return top, left

    @property
    def halo_rows(self) -> Pair:
        """Rows of x above and below a part of it that the part's positions read, each of which has `stride` rows."""
        top = self.origin[0]
        return top, max(0, self.span[0] - top - (self.stride[0] - 1))

    def grid(self, size: tuple[Any, Any]) -> tuple[Any, Any]:
        """Ho and Wo, the positions of the filter on an image of this size (before upsampling).

        Sizes may be symbolic: JAX compares the rounded quotients only in this form, that of its slices.
        """
        (rows, columns), (down, right) = self.view_size(size), self.stride
        return (rows - 1) // down + 1, (columns - 1) // right + 1

    def view_size(self, size: tuple[Any, Any]) -> tuple[Any, Any]:
        """The pixels of the padded x that one tap may read: H + padding - span, and alike for W."""
        rows, columns = (
            length + sum(padding) - span for length, padding, span in zip(size, self.padding, self.span, strict=True)
        )
        return rows, columns

    def output_size(self, size: tuple[Any, Any]) -> tuple[Any, Any]:
        """S·Ho and S·Wo."""
        rows, columns = self.grid(size)
        return self.scale * rows, self.scale * columns

    def tap_offset(self, tap: int) -> Pair:
        """Row and column of a tap in the padded x, for the filter at position (0, 0)."""
        row, column = divmod(tap, self.kernel_size[1])
        return row * self.dilation[0], column * self.dilation[1]


def same_padding(kernel_size: Pair, dilation: Pair) -> Padding:
    """As many zeros as keep the size at a stride of 1; of an odd number the smaller half at the top and left.

    For an odd kernel size the filter is centred. This is "SAME" of XLA and torch at a stride of 1. Unlike XLA's it is
    the same at any stride, as the padding K // 2 of networks in torch.

    >>> same_padding((3, 4), (1, 1))
    ((1, 1), (1, 2))
    """
    rows, columns = _span(kernel_size, dilation)
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def accumulator_dtype(*arrays: Array | None) -> jnp.dtype:
    """The dtype in which filters are combined and sums are kept: float64 where any input is float64, else float32."""
    wide = any(array is not None and array.dtype == jnp.float64 for array in arrays)
    return jnp.dtype(jnp.float64 if wide else jnp.float32)


def _pair(value: int | Sequence[int]) -> Pair:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def _span(kernel_size: Pair, dilation: Pair) -> Pair:
    rows, columns = (step * (taps - 1) for step, taps in zip(dilation, kernel_size, strict=True))
    return rows, columns
