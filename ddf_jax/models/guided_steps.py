"""Layers that double the resolution of depth features under a guidance, for networks in PAC-Net's layout."""

from typing import Any, Protocol

from flax import nnx
from jax import Array

from ddf_jax.functional import space_to_depth
from ddf_jax.layers import DDFUp, PACUp, PointwiseConv
from ddf_jax.layers.initializers import normal_fan_in


class GuidedStep(Protocol):
    """Makes a layer that doubles the resolution, `module(x, guidance)`: [B, H, W, channels] to [B, 2·H, 2·W, channels].

    The guidance is [B, 2·H, 2·W, guidance_channels]. `first` marks the first step of a network.
    """

    def __call__(
        self,
        channels: int,
        guidance_channels: int,
        /,
        *,
        first: bool,
        dtype: Any,
        param_dtype: Any,
        rngs: Any,
    ) -> Any: ...


class DDFStep(nnx.Module):
    """`DDFUp` with the filters of a pixel of x generated from the four guidance pixels that it becomes."""

    def __init__(
        self,
        channels: int,
        guidance_channels: int,
        *,
        first: bool,
        heads: int = 1,
        squeeze_ratio: float = 0.2,
        **dtypes: Any,
    ):
        del first
        guide = 4 * guidance_channels
        self.up = DDFUp(channels, guidance_channels=guide, heads=heads, squeeze_ratio=squeeze_ratio, **dtypes)

    def __call__(self, x: Array, guidance: Array) -> Array:
        return self.up(x, space_to_depth(guidance, 2))


class PACStep(nnx.Module):
    """`PACUp`, which places each pixel of x on the first of the four that it becomes.

    Depth is sampled at pixel S // 2 of S, the last of the four in the first step and the first of them in all others.
    The first step therefore works on a copy rotated by 180°.
    """

    def __init__(self, channels: int, guidance_channels: int, *, first: bool, **dtypes: Any):
        del guidance_channels
        self.up = PACUp(channels, scale=2, **dtypes)
        self.rotated = first

    def __call__(self, x: Array, guidance: Array) -> Array:
        return self._rotate(self.up(self._rotate(x), self._rotate(guidance)))

    def _rotate(self, x: Array) -> Array:
        return x[:, ::-1, ::-1] if self.rotated else x


def pointwise(in_channels: int, out_channels: int, dtypes: dict[str, Any]) -> PointwiseConv:
    """A 1×1 convolution with a bias.

    A smaller initial guidance would leave the Gaussians of PAC flat and their gradients 0.
    """
    return PointwiseConv(in_channels, out_channels, use_bias=True, kernel_init=normal_fan_in, **dtypes)
