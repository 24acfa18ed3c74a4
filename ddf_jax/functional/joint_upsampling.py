"""Classical upsampling of depth: bicubic, joint bilateral, guided filter; and the filling of holes.

Low-resolution depth is `low` [B, h, w, 1], 0 in holes. Its pixel (i, j) is sampled at pixel
(S·i + S // 2, S·j + S // 2) of the full resolution [B, H, W, 1], where h = ⌈H/S⌉ and w = ⌈W/S⌉. Everything is computed
in float32.
"""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pallas_kernels import dynamic_upsample


def fill_holes(depth: Array) -> Array:
    """Depth [B, H, W, 1] with each 0 replaced by nearby depth; all 0 if there is none.

    A hole gets the average of its block of 2×2 pixels or, where that is a hole too, of the 2×2 blocks of those, and so
    on. Blocks start at the corner, so a nearer value may lie in the next block.

    >>> fill_holes(jnp.array([[0.0, 2.0, 4.0]])[None, ..., None]).ravel()
    Array([2., 2., 4.], dtype=float32)
    """
    depth = depth.astype(jnp.float32)
    return _fill(depth, (depth > 0).astype(jnp.float32))


def bicubic_upsample(low: Array, *, height: int, width: int, scale: int) -> Array:
    """Cubic interpolation of depth with its holes filled: to [B, H, W, 1]."""
    return cubic_interpolation(fill_holes(low), height=height, width=width, scale=scale)


def cubic_interpolation(x: Array, *, height: int, width: int, scale: int) -> Array:
    """Cubic interpolation (Keys, a = -1/2) through every sample: [B, h, w, C] to [B, H, W, C]; the border is repeated.

    Samples lie where those of depth do.
    """
    border = 2  # the support of the cubic kernel, which would otherwise be truncated past the last sample
    padded = _pad_edges(x, (border, border), (border, border))
    shape = (x.shape[0], height, width, x.shape[3])
    # Sample i lies at S·i + S // 2 + 1/2, and `scale_and_translate` puts it at S·(i + 1/2) + shift.
    shift = jnp.full(2, scale // 2 + 0.5 - scale / 2 - scale * border, jnp.float32)
    return jax.image.scale_and_translate(padded, shape, (1, 2), jnp.full(2, scale, jnp.float32), shift, "cubic")


def joint_bilateral_upsample(
    low: Array, image: Array, *, scale: int, radius: int = 2, sigma_space: float = 0.5, sigma_colour: float = 0.045
) -> Array:
    r"""Average of samples weighted by distance and difference of colour: to [B, H, W, 1].

    .. math:: y_p = \frac{1}{Z_p} \sum_{q} x_q \;
        e^{-\lVert p - q \rVert^2 / (2 S^2 \sigma_s^2)} \; e^{-\lVert I_p - I_q \rVert^2 / (2 \sigma_c^2)}

    over the valid samples of a window of 2·radius + 1.

    Args:
        low: [B, h, w, 1], 0 in holes.
        image: [B, H, W, C], the guidance I.
        scale: S.
        radius: of the window, in pixels of `low`.
        sigma_space: σ_s, in pixels of `low`.
        sigma_colour: σ_c, in units of the image.

    Reference: Kopf et al., "Joint Bilateral Upsampling", SIGGRAPH 2007.
    """
    (height, width), (rows, columns) = image.shape[1:3], low.shape[1:3]
    image = pad_to(image, scale * rows, scale * columns)
    unlike = colour_distances(image, scale=scale, radius=radius) / (2 * sigma_colour**2)
    far = place_distances(scale=scale, radius=radius) / (2 * sigma_space**2)
    logits = window_logits(-far - unlike, low)[:, :, :, :, None]
    return dynamic_upsample(fill_holes(low), logits, None, scale=scale, normalize="softmax")[:, :height, :width]


def window_logits(logits: Array, valid: Array) -> Array:
    """Logits [B, h, w, S², K²] of a softmax over the valid samples of each window: -∞ for the others.

    Those are the samples that are not `valid` [B, h, w, 1], but for windows without a valid sample, and always the
    samples outside the image.
    """
    size = math.isqrt(logits.shape[-1])
    border = ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0))
    in_window, inside = (
        jnp.concatenate(list(_windows(jnp.pad(mask, border), size)), -1)[:, :, :, None]
        for mask in (valid > 0, jnp.ones(valid.shape, jnp.bool))
    )
    valid_mask = jnp.where(in_window.any(-1, keepdims=True), in_window, inside)
    return jnp.where(valid_mask, logits.astype(jnp.float32), -jnp.inf)


def colour_distances(image: Array, *, scale: int, radius: int) -> Array:
    """Squared difference of each pixel's colour and the colours at the samples: ‖I_p - I_q‖², [B, h, w, S², K²].

    Args:
        image: [B, S·h, S·w, C].
        scale: S.
        radius: of the window of K² = (2·radius + 1)² samples; those outside the image repeat the last one inside.
    """
    fine = blocks(image.astype(jnp.float32), scale)  # [B, h, w, S², C]
    samples = fine[:, :, :, (scale // 2) * (scale + 1)]
    samples = _pad_edges(samples, (radius, radius), (radius, radius))
    return jnp.stack([((q[:, :, :, None] - fine) ** 2).sum(-1) for q in _windows(samples, 2 * radius + 1)], -1)


def place_distances(*, scale: int, radius: int) -> Array:
    """Squared distance of each pixel of a block to the samples, in pixels of `low`: [1, 1, 1, S², K²]."""
    place, window = (np.arange(scale) - scale // 2) / scale, np.arange(-radius, radius + 1)
    squares = (window - place[:, None]) ** 2
    both = squares[:, None, :, None] + squares[None, :, None, :]
    return jnp.asarray(both.reshape(1, 1, 1, scale**2, -1), jnp.float32)


def guided_upsample(low: Array, image: Array, *, scale: int, radius: int = 4, epsilon: float = 1e-3) -> Array:
    r"""Bicubic upsampling, then the guided filter with a colour guidance: to [B, H, W, 1].

    .. math:: y_p = \bar a_p^\top I_p + \bar b_p, \qquad a = (\Sigma + \epsilon E)^{-1} \operatorname{cov}(I, x), \quad
        b = \bar x - a^\top \bar I

    with means over windows of 2·radius + 1, truncated at the border.

    Args:
        low: [B, h, w, 1], 0 in holes.
        image: [B, H, W, C], the guidance I.
        scale: S.
        radius: of the windows, in pixels of the image.
        epsilon: ε, in squared units of the image.

    Reference: He et al., "Guided Image Filtering", TPAMI 2013.
    """
    image = image.astype(jnp.float32)
    x = bicubic_upsample(low, height=image.shape[1], width=image.shape[2], scale=scale)
    mean_image, mean_x = _window_mean(image, radius), _window_mean(x, radius)
    products = _window_mean((image[..., :, None] * image[..., None, :]).reshape(*image.shape[:3], -1), radius)
    covariance = products.reshape(*image.shape, -1) - mean_image[..., :, None] * mean_image[..., None, :]
    with_x = _window_mean(image * x, radius) - mean_image * mean_x
    identity = jnp.eye(image.shape[-1], dtype=jnp.float32).reshape(1, 1, 1, image.shape[-1], -1)
    a = jnp.linalg.solve(covariance + epsilon * identity, with_x[..., None])[..., 0]
    b = mean_x - (a * mean_image).sum(-1, keepdims=True)
    return (_window_mean(a, radius) * image).sum(-1, keepdims=True) + _window_mean(b, radius)


def pad_to(x: Array, height: int, width: int) -> Array:
    """[B, H, W, C] to [B, height, width, C] with the last row and column repeated."""
    return _pad_edges(x, (0, height - x.shape[1]), (0, width - x.shape[2]))


def _pad_edges(x: Array, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    """Repeats the outermost rows and columns. Unlike `jnp.pad` it never slices the batch axis, which may be sharded."""
    for axis, (before, after) in ((1, rows), (2, columns)):
        first, last = lax.slice_in_dim(x, 0, 1, axis=axis), lax.slice_in_dim(x, -1, None, axis=axis)
        x = jnp.concatenate([first] * before + [x] + [last] * after, axis)
    return x


def _fill(values: Array, weights: Array) -> Array:
    _, height, width, _ = values.shape
    if height == width == 1:
        return values
    even = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    sums, counts = (blocks(jnp.pad(x, even), 2).sum(3) for x in (values * weights, weights))
    averages = jnp.where(counts > 0, sums / jnp.maximum(counts, 1.0), 0.0)
    coarse = _fill(averages, (counts > 0).astype(counts.dtype))
    around = jnp.repeat(jnp.repeat(coarse, 2, axis=1), 2, axis=2)[:, :height, :width]
    return jnp.where(weights > 0, values, around)


def _windows(padded: Array, size: int) -> Iterator[Array]:
    """[B, H + size - 1, W + size - 1, C] to each tap's [B, H, W, C], row by row."""
    height, width = (extent - size + 1 for extent in padded.shape[1:3])
    for i in range(size):
        for j in range(size):
            yield padded[:, i : i + height, j : j + width]


def neighbours(x: Array) -> list[Array]:
    """The eight neighbours of each pixel of [B, H, W, C], row by row; the border is repeated."""
    windows = list(_windows(_pad_edges(x, (1, 1), (1, 1)), 3))
    return windows[:4] + windows[5:]


def blocks(x: Array, scale: int) -> Array:
    """[B, S·h, S·w, C] to [B, h, w, S², C]: the pixels of each block, row by row."""
    batch, height, width, channels = x.shape
    # One axis at a time: JAX cannot split two at once where the batch is sharded over an Explicit mesh.
    x = x.reshape(batch, height // scale, scale, width, channels)
    x = x.reshape(batch, height // scale, scale, width // scale, scale, channels).swapaxes(2, 3)
    return x.reshape(batch, height // scale, width // scale, scale**2, channels)


def space_to_depth(x: Array, scale: int) -> Array:
    """[B, S·h, S·w, C] to [B, h, w, S²·C]: the channels of each block's pixels, one pixel after the other."""
    pixels = blocks(x, scale)
    return pixels.reshape(*pixels.shape[:3], -1)


def depth_to_space(x: Array, scale: int) -> Array:
    """The inverse of `space_to_depth`: [B, h, w, S²·C] to [B, S·h, S·w, C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, scale, scale, channels // scale**2).swapaxes(2, 3)
    x = x.reshape(batch, scale * height, width, scale, channels // scale**2)
    return x.reshape(batch, scale * height, scale * width, channels // scale**2)


def _window_mean(x: Array, radius: int) -> Array:
    """Means over windows truncated at the border: sums along columns, then rows, divided by a static count."""
    for axis in (1, 2):
        window = tuple(2 * radius + 1 if other == axis else 1 for other in range(4))
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1, 1, 1), "SAME")
    rows, columns = (
        np.minimum(np.arange(size) + radius, size - 1) - np.maximum(np.arange(size) - radius, 0) + 1
        for size in x.shape[1:3]
    )
    return x / (rows[:, None] * columns[None]).astype(np.float32)[None, :, :, None]
