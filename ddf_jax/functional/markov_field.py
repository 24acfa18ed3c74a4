"""Upsampling of depth by a Markov random field whose smoothness follows an image."""

import jax
import jax.numpy as jnp
from jax import Array

from ddf_jax.functional.checks import check_depth_and_image, check_positive
from ddf_jax.functional.joint_upsampling import bicubic_upsample, pad_to
from ddf_jax.functional.pixel_graph import EdgeWeights, fit_samples, place_samples, squared_differences


def markov_field_upsample(
    low: Array,
    image: Array,
    *,
    scale: int,
    data_weight: float = 1000.0,
    colour_weight: float = 300.0,
    iterations: int = 1000,
    tolerance: float = 1e-5,
) -> Array:
    r"""The most probable depth of a Markov random field: to [B, H, W, 1].

    .. math:: \min_y \; k \sum_{p \in L} (y_p - x_p)^2 + \sum_p \sum_{q \in N(p)} w_{pq} (y_p - y_q)^2, \qquad
        w_{pq} = e^{-c \lVert I_p - I_q \rVert^2}

    L holds the pixels that have a sample, N(p) the four neighbours of p. The sum is quadratic, and its minimum is found
    by conjugate gradients from bicubically upsampled depth, in float32. Depth may have any unit. It is differentiable
    with respect to depth, image, k and c.

    Args:
        low: [B, h, w, 1], 0 in holes.
        image: [B, H, W, C], the guidance I.
        scale: S.
        data_weight: k.
        colour_weight: c, in inverse squared units of the image.
        iterations: at most.
        tolerance: of the residual of the linear system, relative to its right side.

    Raises:
        UserError: the shapes do not go together, or a number is not positive.

    Reference: Diebel and Thrun, "An Application of Markov Random Fields to Range Sensing", NIPS 2005. The defaults of k
    and c are not the paper's: of a few values they were chosen here, by 4 on training pictures of `rooms`.
    """
    check_depth_and_image(low, image, scale)
    check_positive(data_weight=data_weight, colour_weight=colour_weight, iterations=iterations, tolerance=tolerance)
    (height, width), (rows, columns) = image.shape[1:3], low.shape[1:3]
    low, size = low.astype(jnp.float32), (scale * rows, scale * columns)
    start = bicubic_upsample(low, height=size[0], width=size[1], scale=scale)

    def upsample(low: Array, image: Array, start: Array) -> Array:
        samples = place_samples(low, scale)
        # Each pair of neighbours is counted twice, from either end.
        edges = EdgeWeights(*(2 * jnp.exp(-colour_weight * d) for d in squared_differences(image)))
        confidence = data_weight * (samples > 0).astype(jnp.float32)
        return fit_samples(samples, confidence, edges, start, iterations=iterations, tolerance=tolerance)

    image = pad_to(image.astype(jnp.float32), *size)
    return jax.vmap(upsample)(low[..., 0], image, start[..., 0])[:, :height, :width, None]
