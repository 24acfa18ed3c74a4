"""Convolution of an image by matrix products: a GPU's take at least eight channels."""

import itertools

import jax.numpy as jnp
from jax import Array, lax

from ddf_jax.functional.views import strided

ALIGNED_CHANNELS = 8
MAX_CHANNELS = 4


def can_be_folded(x: Array, kernel: Array, strides: tuple[int, int], dilation: tuple[int, int], groups: int) -> bool:
    """Whether `folded_convolution` computes this convolution, and there is a reason to."""
    even = all(isinstance(side, int) and side % 2 == 0 for side in x.shape[1:3])
    return even and kernel.shape[2] <= MAX_CHANNELS and (*strides, *dilation, groups) == (2, 2, 1, 1, 1)


def folded_convolution(x: Array, kernel: Array, padding: tuple[tuple[int, int], ...]) -> Array:
    """Convolution of stride 2, of x [B, 2·H, 2·W, C] with a kernel [K, K, C, D], as one of stride 1.

    Each 2×2 pixels become one of 4·C channels, and the kernel is folded alike, with zeros for the taps that it lacks
    (space to depth). Channels are filled up to a multiple of 8. On an H200 the first convolution of a ResNet (7×7, 3 to
    64 channels, 128 images of 224², bfloat16) and its derivative took 1.4 ms unfolded, 7 % of the training step.
    """
    _, height, width, channels = x.shape
    fill = ((0, 0),) * 3 + ((0, -4 * channels % ALIGNED_CHANNELS),)
    corners = list(itertools.product(range(2), repeat=2))
    blocks = [strided(x, 2, start=(i, j), size=(height - i, width - j)) for i, j in corners]
    # The first tap lies `low` pixels above: with one more where that is odd, it is the first row of a block.
    taps, borders = [], []
    for size, side, (low, high) in zip(kernel.shape[:2], (height, width), padding, strict=True):
        taps.append((low % 2, (size + low) % 2))
        first = (low + 1) // 2
        positions = (side + low + high - size) // 2 + 1
        borders.append((first, positions - 1 - side // 2 - first + (size + sum(taps[-1])) // 2))
    kernel = jnp.pad(kernel, (*taps, (0, 0), (0, 0)))
    kernel = jnp.concatenate([kernel[i::2, j::2] for i, j in corners], axis=2)
    return lax.conv_general_dilated(
        jnp.pad(jnp.concatenate(blocks, axis=-1), fill),
        jnp.pad(kernel, (*fill[:2], fill[3], (0, 0))),
        (1, 1),
        borders,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
