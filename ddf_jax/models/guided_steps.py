"""What doubles the resolution of depth's features under a guidance, for networks in PAC-Net's layout."""

from typing import Any, Protocol

from flax import nnx
from jax import Array

from ddf_jax.functional.joint_upsampling import space_to_depth
from ddf_jax.layers import DDFUp, PACUp, PointwiseConv

# He et al., 2015: a guidance that starts smaller leaves the Gaussians of PAC flat, and their gradients 0.
FAN_IN = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


class GuidedStep(Protocol):
    """Makes what doubles the resolution by a guidance of the doubled one: `module(x, guidance)`, [B, H, W, channels]
    and [B, 2·H, 2·W, guidance_channels] to [B, 2·H, 2·W, channels]. The first step of a network is told so."""

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
    ) -> nnx.Module: ...


class DDFStep(nnx.Module):
    """`DDFUp`, whose filters are generated from all four pixels of the guidance that a pixel of x becomes."""

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
    """`PACUp`, which takes each pixel of x to lie on the first of the four that it becomes.

    Depth was taken from pixel S // 2 of S, which is the last of the four in the first step and the first in all others:
    the first step is done upside down and mirrored.
    """

    def __init__(self, channels: int, guidance_channels: int, *, first: bool, **dtypes: Any):
        del guidance_channels
        self.up = PACUp(channels, scale=2, **dtypes)
        self.turned = first

    def __call__(self, x: Array, guidance: Array) -> Array:
        return self._turn(self.up(self._turn(x), self._turn(guidance)))

    def _turn(self, x: Array) -> Array:
        return x[:, ::-1, ::-1] if self.turned else x


def pointwise(given: int, made: int, dtypes: dict[str, Any]) -> PointwiseConv:
    """A 1×1 convolution with a bias."""
    return PointwiseConv(given, made, use_bias=True, kernel_init=FAN_IN, **dtypes)
