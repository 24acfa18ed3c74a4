"""Upsampling of depth under two guidances: the image, which is static, and the depth found so far, which is dynamic."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from ddf_jax.functional.checks import check_depth_and_image, check_positive
from ddf_jax.functional.joint_upsampling import bicubic_upsample, pad_to
from ddf_jax.functional.pixel_graph import EdgeWeights, fit_samples, place_samples, squared_differences


def static_dynamic_upsample(
    low: Array,
    image: Array,
    *,
    scale: int,
    smoothness: float = 0.001,
    static_bandwidth: float = 300.0,
    dynamic_bandwidth: float = 200.0,
    steps: int = 20,
    iterations: int = 200,
    tolerance: float = 1e-5,
) -> Array:
    r"""The static/dynamic filter: to [B, H, W, 1].

    .. math:: \min_u \; \sum_{p \in L} (u_p - x_p)^2 + \lambda \sum_{(p, q)} e^{-\mu \lVert I_p - I_q \rVert^2} \;
        \frac{1 - e^{-\nu (u_p - u_q)^2}}{\nu}

    over all pairs of neighbours in a row or a column. L holds the pixels that have a sample; depth is divided by the
    largest sample of its picture, so that ν has no unit. The function of u is not convex. Majorisation-minimisation
    replaces it by the quadratic one that touches it at the last u, with the weights
    :math:`e^{-\mu \lVert I_p - I_q \rVert^2} e^{-\nu (u_p - u_q)^2}`, whose minimum conjugate gradients find, in
    float32. The first u is constant, so the first step is guided by the image alone. It is differentiable with respect
    to depth, image, λ, μ and ν.

    Args:
        low: [B, h, w, 1], 0 in holes.
        image: [B, H, W, C], the guidance I.
        scale: S.
        smoothness: λ.
        static_bandwidth: μ, in inverse squared units of the image.
        dynamic_bandwidth: ν.
        steps: of majorisation-minimisation, each a linear system.
        iterations: of conjugate gradients, at most, in each step.
        tolerance: of the residual of the linear systems, relative to their right side.

    Raises:
        UserError: the shapes do not go together, or a number is not positive.

    Reference: Ham et al., "Robust Image Filtering Using Joint Static and Dynamic Guidance", CVPR 2015; "Robust Guided
    Image Filtering Using Nonconvex Potentials", TPAMI 2018. The defaults of λ, μ and ν are not the papers': of a few
    values they were chosen here, by 4 on training pictures of `rooms`.
    """
    check_depth_and_image(low, image, scale)
    check_positive(
        smoothness=smoothness,
        static_bandwidth=static_bandwidth,
        dynamic_bandwidth=dynamic_bandwidth,
        steps=steps,
        iterations=iterations,
        tolerance=tolerance,
    )
    (height, width), (rows, columns) = image.shape[1:3], low.shape[1:3]
    low, size = low.astype(jnp.float32), (scale * rows, scale * columns)
    start = bicubic_upsample(low, height=size[0], width=size[1], scale=scale)

    def upsample(low: Array, image: Array, start: Array) -> Array:
        unit = jnp.where(low.max() > 0, low.max(), 1.0)
        samples = place_samples(low / unit, scale)
        confidence = (samples > 0).astype(jnp.float32)
        static = [jnp.exp(-static_bandwidth * d) for d in squared_differences(image)]

        def step(u: Array, weights: EdgeWeights) -> Array:
            edges = EdgeWeights(*(smoothness * s * w for s, w in zip(static, weights, strict=True)))
            return fit_samples(samples, confidence, edges, u, iterations=iterations, tolerance=tolerance)

        def next_step(u: Array, _: None) -> tuple[Array, None]:
            weights = (jnp.exp(-dynamic_bandwidth * d) for d in squared_differences(u[..., None]))
            return step(u, EdgeWeights(*weights)), None

        first = step(start / unit, EdgeWeights(*map(jnp.ones_like, static)))
        return unit * lax.scan(next_step, first, length=steps - 1)[0]

    image = pad_to(image.astype(jnp.float32), *size)
    return jax.vmap(upsample)(low[..., 0], image, start[..., 0])[:, :height, :width, None]
