"""Calls of the operator by name, at the shapes of real networks, for tests, tuning and benchmarks."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from pallas_kernels.ops.api import dynamic_filter, dynamic_upsample
from pallas_kernels.ops.spec import FilterSpec

KERNEL_3 = FilterSpec(kernel_size=3)

# One dtype for every array, or one each for x, spatial and channel.
DTypes = DTypeLike | tuple[DTypeLike, DTypeLike, DTypeLike]


@dataclasses.dataclass(frozen=True)
class ArgSpec:
    """One call of the operator, without its values. Its arrays have the shapes of `FilterSpec`.

    Methods that return x, the spatial and the channel filter return None for a filter that the call does not have.

    Args:
      name: of the call.
      x: [B, H, W, C].
      spec: the static options.
      groups: G, or None for a call without a spatial filter.
      channel: whether there is a channel filter.

    >>> arg = ArgSpec("small", (2, 5, 7, 4), FilterSpec(3, stride=2), groups=2)
    >>> arg.shapes()
    ((2, 5, 7, 4), (2, 3, 4, 1, 2, 9), (2, 1, 9, 4))
    >>> arg.call(*arg.arrays(), implementation="xla").shape
    (2, 3, 4, 4)
    """

    name: str
    x: tuple[int, int, int, int]
    spec: FilterSpec = KERNEL_3
    groups: int | None = 1
    channel: bool = True

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...] | None, tuple[int, ...] | None]:
        """Shapes of x, the spatial and the channel filter."""
        batch, height, width, channels = self.x
        grid = (batch, *self.spec.grid((height, width)))
        spatial = None if self.groups is None else (*grid, self.spec.scale**2, self.groups, self.spec.taps)
        channel = (batch, self.spec.scale**2, self.spec.taps, channels) if self.channel else None
        return self.x, spatial, channel

    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of y."""
        batch, height, width, channels = self.x
        return batch, *self.spec.output_size((height, width)), channels

    def output_struct(self, dtype: DTypes = jnp.float32) -> jax.ShapeDtypeStruct:
        """y and its cotangent, to trace and compile with."""
        return jax.ShapeDtypeStruct(self.output_shape(), _one_each(dtype)[0])

    def structs(self, dtype: DTypes = jnp.float32) -> tuple[Any, Any, Any]:
        """`jax.ShapeDtypeStruct`s to trace and compile with."""
        return self._each(jax.ShapeDtypeStruct, dtype)

    def arrays(self, seed: int = 0, dtype: DTypes = jnp.float32) -> tuple[Any, Any, Any]:
        """Normally distributed numpy arrays: equal seeds give equal arrays on every machine."""
        return self._each(functools.partial(_normal, np.random.default_rng(seed)), dtype)

    def cotangent(self, seed: int = 1, dtype: DTypes = jnp.float32) -> np.ndarray:
        """A cotangent of y, in the dtype of x."""
        return _normal(np.random.default_rng(seed), self.output_shape(), _one_each(dtype)[0])

    def call(
        self,
        x: Array,
        spatial: Array | None,
        channel: Array | None,
        *,
        implementation: str | Sequence[str] | None = None,
    ) -> Array:
        """`dynamic_filter`, or `dynamic_upsample` where the scale is not 1, of these arrays."""
        spec = self.spec
        if spec.scale > 1:
            return dynamic_upsample(
                x,
                spatial,
                channel,
                scale=spec.scale,
                kernel_size=spec.kernel_size,
                dilation=spec.dilation,
                combine=spec.combine,
                normalize=spec.normalize,
                gain=spec.gain,
                implementation=implementation,
            )
        return dynamic_filter(
            x,
            None if spatial is None else jnp.squeeze(spatial, 3),
            None if channel is None else jnp.squeeze(channel, 1),
            kernel_size=spec.kernel_size,
            stride=spec.stride,
            dilation=spec.dilation,
            combine=spec.combine,
            padding=spec.padding,
            normalize=spec.normalize,
            gain=spec.gain,
            implementation=implementation,
        )

    def _each(self, make: Callable[[tuple[int, ...], np.dtype], Any], dtype: DTypes) -> tuple[Any, Any, Any]:
        x, spatial, channel = (
            None if shape is None else make(shape, jnp.dtype(each))
            for shape, each in zip(self.shapes(), _one_each(dtype), strict=True)
        )
        return x, spatial, channel


def _one_each(dtype: DTypes) -> tuple[Any, Any, Any]:
    return dtype if isinstance(dtype, tuple) else (dtype, dtype, dtype)


def _normal(generator: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    drawn = np.float64 if jnp.dtype(dtype) == np.float64 else np.float32
    return generator.standard_normal(shape, drawn).astype(jnp.dtype(dtype), copy=False)


# DDF in the 3×3 slots of ResNet-50: 224² images, 128 per device. The first block of a stage has the stride.
RESNET50 = (
    ArgSpec("resnet50_56x56x64", (128, 56, 56, 64)),
    ArgSpec("resnet50_56x56x128_stride2", (128, 56, 56, 128), FilterSpec(3, stride=2)),
    ArgSpec("resnet50_28x28x128", (128, 28, 28, 128)),
    ArgSpec("resnet50_28x28x256_stride2", (128, 28, 28, 256), FilterSpec(3, stride=2)),
    ArgSpec("resnet50_14x14x256", (128, 14, 14, 256)),
    ArgSpec("resnet50_14x14x512_stride2", (128, 14, 14, 512), FilterSpec(3, stride=2)),
    ArgSpec("resnet50_7x7x512", (128, 7, 7, 512)),
)

# Involution in the same slots and in the stem (RedNet-50): groups of 16 channels.
REDNET50 = (
    ArgSpec("rednet50_stem_112x112x32", (128, 112, 112, 32), groups=2, channel=False),
    ArgSpec("rednet50_56x56x64", (128, 56, 56, 64), FilterSpec(7), groups=4, channel=False),
    ArgSpec("rednet50_56x56x128_stride2", (128, 56, 56, 128), FilterSpec(7, stride=2), groups=8, channel=False),
    ArgSpec("rednet50_28x28x128", (128, 28, 28, 128), FilterSpec(7), groups=8, channel=False),
    ArgSpec("rednet50_14x14x256", (128, 14, 14, 256), FilterSpec(7), groups=16, channel=False),
    ArgSpec("rednet50_7x7x512", (128, 7, 7, 512), FilterSpec(7), groups=32, channel=False),
)

# The levels of a feature pyramid over 800×1200 images; the first is Table 2 of the DDF paper.
FPN_SIZES = {"p2": (200, 300), "p3": (100, 150), "p4": (50, 75), "p5": (25, 38), "p6": (13, 19)}
FPN_LEVELS = tuple(ArgSpec(f"fpn_{level}", (2, *size, 256)) for level, size in FPN_SIZES.items())

# The sweep over the image size of the DDF paper's poster.
POSTER = tuple(ArgSpec(f"poster_{size}", (32, size, size, 256)) for size in (7, 14, 28, 56, 112, 224))

# The top-down path of that pyramid with CARAFE (5×5) and with DDF-Up (3×3), and DDF-Up in joint depth upsampling: from
# 64² to 256² in two steps, 32 channels, 8 crops.
UPSAMPLING = (
    *(
        ArgSpec(f"carafe_{level}", (2, *FPN_SIZES[level], 256), FilterSpec(5, scale=2), channel=False)
        for level in ("p3", "p4", "p5")
    ),
    *(ArgSpec(f"ddf_up_{level}", (2, *FPN_SIZES[level], 256), FilterSpec(3, scale=2)) for level in ("p3", "p4", "p5")),
    *(ArgSpec(f"ddf_up_depth_{size}", (8, size, size, 32), FilterSpec(3, scale=2)) for size in (64, 128)),
)

# The shapes at which the operator is timed against its peers.
BENCHMARK = tuple(
    ArgSpec("x".join(map(str, shape)), shape)
    for shape in ((8, 56, 56, 64), (8, 28, 28, 128), (8, 14, 14, 256), (2, 100, 100, 256))
)

ARG_SPECS = {arg.name: arg for arg in (*RESNET50, *REDNET50, *FPN_LEVELS, *POSTER, *UPSAMPLING, *BENCHMARK)}
"""Shapes and options of calls by name: those of the networks in the papers, and of the benchmarks."""
