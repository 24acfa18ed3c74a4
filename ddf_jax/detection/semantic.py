"""Semantic segmentation next to a detector: HTC's branch and Panoptic FPN's head."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ddf_jax.detection.losses import softmax_cross_entropy
from ddf_jax.errors import UserError
from ddf_jax.layers import Bilinear, Conv, PointwiseConv
from ddf_jax.layers.initializers import normal_fan_in
from pallas_kernels import accumulator_dtype

IGNORED = 255
"""The label of pixels that do not count."""


class FusedSemanticHead(nnx.Module):
    """HTC's semantic branch: all levels, resized to the second and added, to logits and to features for the regions.

    Args:
      channels: of the levels and of all layers.
      num_classes: of things and stuff.
      levels: how many there are.
      depth: number of 3×3 convolutions.

    Reference: Chen et al., "Hybrid Task Cascade for Instance Segmentation", CVPR 2019.
    """

    level = 1  # to whose size the others are resized
    weight = 0.2  # of the loss

    def __init__(self, channels: int, num_classes: int, *, levels: int = 5, depth: int = 4, **dtypes: Any):
        options = {"use_bias": True, "bias_init": nnx.initializers.zeros, **dtypes}
        self.laterals = nnx.List([PointwiseConv(channels, channels, **options) for _ in range(levels)])
        self.convs = nnx.List([Conv(channels, channels, **options) for _ in range(depth)])
        self.embedding = PointwiseConv(channels, channels, **options)
        self.logits = PointwiseConv(channels, num_classes, **options)

    def __call__(self, levels: Sequence[Array]) -> tuple[Array, Array]:
        """Levels [B, H, W, channels] to logits and features of the second level's size."""
        size = levels[self.level].shape[1:3]
        resized = [x if n == self.level else resize_corners(x, size) for n, x in enumerate(levels)]
        lateral = [jax.nn.relu(conv(x)) for conv, x in zip(self.laterals, resized, strict=True)]
        order = [self.level, *(n for n in range(len(levels)) if n != self.level)]
        x = functools.reduce(jnp.add, [lateral[n] for n in order])
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        logits = self.logits(x)
        return logits.astype(accumulator_dtype(logits)), jax.nn.relu(self.embedding(x))

    def loss(self, logits: Array, labels: Array) -> Array:
        """Of logits [B, H/8, W/8, classes] and labels [B, H, W]."""
        return self.weight * pixel_loss(logits, labels)


class PanopticHead(nnx.Module):
    """Panoptic FPN's head: the four finest levels at the size of the finest, added, to logits of the stuff.

    Args:
      channels: of the levels.
      num_stuff: classes of stuff; one more is of all things.
      inner: channels of the convolutions.

    Reference: Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019.
    """

    weight = 0.5  # of the loss

    def __init__(self, channels: int, num_stuff: int, *, inner: int = 128, **dtypes: Any):
        self.scales = nnx.List([UpsampledConvs(channels, inner, halvings, **dtypes) for halvings in range(4)])
        init = {"kernel_init": nnx.initializers.normal(0.01), "bias_init": nnx.initializers.zeros}
        self.logits = PointwiseConv(inner, num_stuff + 1, use_bias=True, **init, **dtypes)

    def __call__(self, levels: Sequence[Array]) -> Array:
        """Levels [B, H, W, channels] to logits of the finest one's size."""
        height, width = levels[0].shape[1:3]
        maps = [scale(x)[:, :height, :width] for scale, x in zip(self.scales, levels, strict=False)]
        logits = self.logits(functools.reduce(jnp.add, maps))
        return logits.astype(accumulator_dtype(logits))

    def loss(self, logits: Array, labels: Array) -> Array:
        """Of logits [B, H/4, W/4, classes] and labels [B, H, W]."""
        return self.weight * pixel_loss(logits, labels)


class UpsampledConvs(nnx.Module):
    """3×3 convolutions with group normalisation and ReLU, each followed by a bilinear upsampling by 2.

    Args:
      channels: of the input.
      inner: of the outputs.
      halvings: how often the size is doubled; with none there is one convolution.
    """

    def __init__(self, channels: int, inner: int, halvings: int, **dtypes: Any):
        widths = [channels] + [inner] * max(halvings, 1)
        pairs = list(itertools.pairwise(widths))
        self.convs = nnx.List([Conv(*pair, kernel_init=normal_fan_in, **dtypes) for pair in pairs])
        self.norms = nnx.List([GroupNorm(inner, **dtypes) for _ in pairs])
        self.upsample = Bilinear(inner, scale=2)
        self.halvings = halvings

    def __call__(self, x: Array) -> Array:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.relu(norm(conv(x)))
            x = self.upsample(x) if self.halvings else x
        return x


class GroupNorm(nnx.Module):
    """Normalises groups of channels of each sample, [B, H, W, C] to the same shape, with torch's ε of 1e-5.

    Statistics are computed in float32 (float64 for float64).

    Raises:
      UserError: the groups do not divide C.

    Reference: Wu & He, "Group Normalization", ECCV 2018.
    """

    def __init__(
        self, channels: int, *, groups: int = 32, dtype: Any = None, param_dtype: Any = jnp.float32, rngs: Any = None
    ):
        if channels % groups:
            raise UserError(f"`groups` must divide the channels, got {groups} for {channels}.")
        del rngs  # nothing is random
        self.scale = nnx.Param(jnp.ones(channels, param_dtype))
        self.bias = nnx.Param(jnp.zeros(channels, param_dtype))
        self.groups, self.dtype = groups, dtype

    def __call__(self, x: Array) -> Array:
        wide = x.astype(accumulator_dtype(x)).reshape(*x.shape[:3], self.groups, -1)
        mean = wide.mean((1, 2, 4), keepdims=True)
        centred = wide - mean
        variance = jnp.square(centred).mean((1, 2, 4), keepdims=True)
        y = (centred * jax.lax.rsqrt(variance + 1e-5)).reshape(x.shape)
        scale, bias = (value[...].astype(y.dtype).reshape(1, 1, 1, -1) for value in (self.scale, self.bias))
        return (y * scale + bias).astype(x.dtype if self.dtype is None else self.dtype)


def pixel_loss(logits: Array, labels: Array) -> Array:
    """Mean cross entropy over all pixels, those ignored among them, as MMDetection's.

    Args:
      logits: [B, h, w, classes].
      labels: [B, H, W], of which the nearest pixels are taken.
    """
    height, width = logits.shape[1:3]
    rows, columns = (
        np.arange(size) * whole // size for size, whole in ((height, labels.shape[1]), (width, labels.shape[2]))
    )
    labels = labels[:, rows][:, :, columns].astype(jnp.int32)
    losses = softmax_cross_entropy(logits, labels)
    return jnp.where(labels == IGNORED, 0, losses).mean()


def resize_corners(x: Array, size: tuple[int, ...]) -> Array:
    """Bilinear resizing [B, H, W, C] to another size where the corners' centres stay (torch's `align_corners=True`)."""
    rows, columns = (
        jnp.asarray(_corner_weights(old, new), accumulator_dtype(x))
        for old, new in zip(x.shape[1:3], size, strict=True)
    )
    y = jnp.einsum("Hh,bhwc->bHwc", rows, x.astype(rows.dtype))
    return jnp.einsum("Ww,bHwc->bHWc", columns, y).astype(x.dtype)


def _corner_weights(old: int, new: int) -> np.ndarray:
    """[new, old]."""
    place = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
    low = np.minimum(place.astype(int), old - 1)
    high, upper = np.minimum(low + 1, old - 1), place - low
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new), low), 1 - upper)
    np.add.at(weights, (np.arange(new), high), upper)
    return weights
