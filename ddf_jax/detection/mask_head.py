"""The mask head: which pixels of a box belong to its object."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.detection.losses import sigmoid_cross_entropy
from ddf_jax.detection.per_image import per_image
from ddf_jax.detection.regions import Regions
from ddf_jax.detection.roi_align import axis_weights
from ddf_jax.layers import PointwiseConv
from ddf_jax.layers.initializers import normal_fan_out
from pallas_kernels import accumulator_dtype

BINS = 14
"""Bins of RoIAlign along both axes; a mask has twice as many."""

_AT_ONCE = 8  # masks that are resampled at once


class MaskHead(nnx.Module):
    """3×3 convolutions, a 2×2 transposed one that doubles the size, and a 1×1 one to a mask for each class.

    Args:
      channels: of the regions' features and of all layers.
      num_classes: C.
      conv: factory of the 3×3 convolutions or of their replacement.
      depth: how many there are.
      flow: whether the features of another mask head come in, by a 1×1 convolution (HTC).
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        conv: Callable[..., Any],
        depth: int = 4,
        flow: bool = False,
        **dtypes: Any,
    ):
        options = {"use_bias": True, "kernel_init": normal_fan_out, "bias_init": nnx.initializers.zeros, **dtypes}
        self.convs = nnx.List([conv(channels, channels, stride=1, **dtypes) for _ in range(depth)])
        self.flow: Any = PointwiseConv(channels, channels, **options) if flow else nnx.data(None)
        self.upsample = TransposedConv(channels, **dtypes)
        self.logits = PointwiseConv(channels, num_classes, **options)

    def __call__(self, x: Array, given: Array | None = None) -> Array:
        """Regions [N, 14, 14, channels] to logits [N, 28, 28, C]."""
        return self.masks(self.features(x, given))

    def features(self, x: Array, given: Array | None = None) -> Array:
        """The last 3×3 convolution's output, with another head's in `given`: [N, 14, 14, channels]."""
        if given is not None:
            x += jax.nn.relu(self.flow(given))
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return x

    def masks(self, features: Array) -> Array:
        """Features to logits [N, 28, 28, C]."""
        logits = self.logits(jax.nn.relu(self.upsample(features)))
        return logits.astype(accumulator_dtype(logits))


class TransposedConv(nnx.Module):
    """A 2×2 transposed convolution with a stride of 2: every pixel becomes 2×2, [N, H, W, C] to [N, 2H, 2W, C]."""

    def __init__(self, channels: int, *, dtype: Any = None, param_dtype: Any = jnp.float32, rngs: Any):
        self.conv = PointwiseConv(
            channels, 4 * channels, kernel_init=normal_fan_out, dtype=dtype, param_dtype=param_dtype, rngs=rngs
        )
        self.bias = nnx.Param(jnp.zeros(channels, param_dtype))

    def __call__(self, x: Array) -> Array:
        count, height, width, channels = x.shape
        y = self.conv(x).reshape(count, height, width, 2, 2, channels)
        y = y.swapaxes(2, 3).reshape(count, 2 * height, 2 * width, channels)
        return y + self.bias[...].astype(y.dtype).reshape(1, 1, 1, -1)


def mask_targets(masks: Array, width: int, regions: Regions, most: int) -> Array:
    """The objects' masks in the first `most` regions, resampled by RoIAlign, at least half a pixel: [B, most, 28, 28].

    Args:
      masks: packed [B, M, H, ⌈W/8⌉] uint8, as in `Truths`.
      width: W.
      regions: of the batch; only positives have a target.
      most: at least the number of positives.
    """
    boxes, truth = regions.boxes[:, :most], regions.truth[:, :most]
    return per_image(functools.partial(_targets, width), masks, boxes, truth)


def mask_loss(logits: Array, targets: Array, regions: Regions) -> Array:
    """Mean cross entropy of the positives' masks, of the channel of each one's class.

    Args:
      logits: of the first regions of each image [B, K, 28, 28, C].
      targets: [B, K, 28, 28].
      regions: of the batch.
    """
    most = logits.shape[1]
    positive, labels = regions.sample.positive[:, :most], regions.labels[:, :most]
    entropy = sigmoid_cross_entropy(of_label(logits, labels), targets.astype(logits.dtype))
    pixels = positive.sum() * targets.shape[2] * targets.shape[3]
    entropy = jnp.where(positive[..., None, None], entropy, 0)
    return entropy.sum() / jnp.maximum(pixels, 1).astype(entropy.dtype)


def of_label(logits: Array, labels: Array) -> Array:
    """[B, K, H, W, C] and [B, K] to [B, K, H, W]."""
    labels = jnp.minimum(labels, logits.shape[-1] - 1)
    return jnp.take_along_axis(logits, labels[..., None, None, None], axis=4)[..., 0]


def _targets(width: int, masks: Array, boxes: Array, truth: Array, _: tuple[()]) -> Array:
    image = jnp.broadcast_to(jnp.arange(len(boxes), dtype=jnp.int32)[:, None], truth.shape)

    def target(region: tuple[Array, Array, Array]) -> Array:
        image, truth, box = region
        pixels = jnp.unpackbits(masks[image, truth], axis=-1)[:, :width].astype(box.dtype)
        corners = box[None] - 0.5
        rows, columns = (
            axis_weights(corners[:, first], corners[:, first + 2] - corners[:, first], 2 * BINS, length)[0]
            for first, length in ((1, pixels.shape[0]), (0, pixels.shape[1]))
        )
        return rows @ pixels @ columns.T >= 0.5

    regions = tuple(array.reshape(-1, *array.shape[2:]) for array in (image, truth, boxes))
    found = jax.lax.map(target, regions, batch_size=_AT_ONCE)
    return found.reshape(*truth.shape, *found.shape[1:])
