"""Upsampling of depth by the fast bilateral solver: weighted least squares over the cells of a bilateral grid."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ddf_jax.errors import UserError
from ddf_jax.functional.checks import check_depth_and_image, check_positive
from ddf_jax.functional.joint_upsampling import bicubic_upsample, pad_to
from ddf_jax.functional.pixel_graph import solve

BISTOCHASTIC_STEPS = 10
TO_YUV = np.array([[0.299, -0.168736, 0.5], [0.587, -0.331264, -0.418688], [0.114, 0.5, -0.081312]], np.float32)


def bilateral_solver_upsample(
    low: Array,
    image: Array,
    *,
    scale: int,
    smoothness: float = 1.0,
    sigma_space: float = 2.0,
    sigma_luma: float = 0.06,
    sigma_chroma: float = 0.06,
    sigma_confidence: float = 0.1,
    iterations: int = 25,
    tolerance: float = 1e-5,
) -> Array:
    r"""The fast bilateral solver on bicubically upsampled depth: to [B, H, W, 1].

    .. math:: \min_x \; \frac{\lambda}{2} \sum_{p, q} \hat W_{pq} (x_p - x_q)^2 + \sum_p c_p (x_p - t_p)^2

    t is bicubically upsampled depth. Its confidence c is a Gaussian bump at each sample, and 0 around holes. Ŵ is a
    bistochastic bilateral affinity, factorised over the cells of a grid in space and colour (x, y, and Y, U, V):
    S splats pixels into cells, B blurs with (1, 2, 1) along each of the axes, and :math:`\hat W = S^\top D_m^{-1} D_n B
    D_n D_m^{-1} S`. The depth of the cells is the solution of

    .. math:: (\lambda (D_m - D_n B D_n) + \operatorname{diag}(S c)) \; y = S (c \circ t)

    by conjugate gradients with Jacobi's preconditioner, in float32, and every pixel gets that of its cell. Only cells
    that hold pixels exist, so arrays are no larger than the picture. It is differentiable with respect to depth and λ;
    cells are constant in the image and in the widths σ, whose derivatives are 0 (the confidence's aside).

    Args:
        low: [B, h, w, 1], 0 in holes.
        image: [B, H, W, C], the guidance, of three colours or one.
        scale: S.
        smoothness: λ.
        sigma_space: width of a cell in pixels.
        sigma_luma: height of a cell in luma, in units of the image.
        sigma_chroma: in both chroma channels.
        sigma_confidence: deviation of the bumps, in pixels of `low`.
        iterations: of conjugate gradients, at most.
        tolerance: of the residual of the linear system, relative to its right side.

    Raises:
        UserError: the shapes do not go together, or a number is not positive.

    Reference: Barron and Poole, "The Fast Bilateral Solver", ECCV 2016. The defaults of λ and σ are not the paper's: of
    a few values they were chosen here, by 4 on training pictures of `rooms`.
    """
    check_depth_and_image(low, image, scale)
    check_positive(
        smoothness=smoothness,
        sigma_space=sigma_space,
        sigma_luma=sigma_luma,
        sigma_chroma=sigma_chroma,
        sigma_confidence=sigma_confidence,
        iterations=iterations,
        tolerance=tolerance,
    )
    if image.shape[-1] not in (1, 3):
        raise UserError(f"`image` must have 1 or 3 channels, got {image.shape}. Pass the colours alone.")
    (height, width), (rows, columns) = image.shape[1:3], low.shape[1:3]
    low, size = low.astype(jnp.float32), (scale * rows, scale * columns)
    target = bicubic_upsample(low, height=size[0], width=size[1], scale=scale)
    image = pad_to(image.astype(jnp.float32), *size)
    colours = jnp.matmul(image, TO_YUV, precision="highest") if image.shape[-1] == 3 else image
    widths = [sigma_luma, *[sigma_chroma] * (image.shape[-1] - 1)]

    def upsample(low: Array, colours: Array, target: Array) -> Array:
        place = jnp.indices(size, jnp.float32) / sigma_space
        cells = jnp.stack([*place, *(colours[..., i] / sigma for i, sigma in enumerate(widths))])
        vertex, neighbours = bilateral_grid(jnp.floor(cells).astype(jnp.int32).reshape(len(cells), -1))
        confidence = _bumps(low > 0, scale, sigma_confidence)
        sums = (_splat(x.ravel(), vertex) for x in (jnp.ones_like(target), target, confidence, confidence * target))
        pixels, targets, confidences, weighted = sums
        start = jnp.where(confidences > 0, _ratio(weighted, confidences), _ratio(targets, pixels))
        n = _bistochastic(pixels, neighbours)
        # D_m - D_n B D_n as differences, which are exactly 0 where depth is constant: B's diagonal has no part in it.
        weights = smoothness * (n[None] * jnp.append(n, 0.0)[neighbours])  # symmetric to the last bit
        y = solve(
            lambda y: (weights * (y[None] - jnp.append(y, 0.0)[neighbours])).sum(0) + confidences * y,
            weighted,
            weights.sum(0) + confidences,
            start,
            iterations=iterations,
            tolerance=tolerance,
        )
        return y[vertex].reshape(target.shape)

    return jax.vmap(upsample)(low[..., 0], colours, target[..., 0])[:, :height, :width, None]


def bilateral_grid(cells: Array) -> tuple[Array, Array]:
    """Numbers the cells that hold pixels, and finds the cells next to each.

    Args:
        cells: [D, P] int32, the cell of each of P pixels in D dimensions.

    Returns:
        The number of each pixel's cell, [P], and for each of P cells (as many as there can be) those one before and
        one after it along each axis, [2·D, P]; P where there is none.
    """
    dimensions, pixels = cells.shape
    order = jnp.lexsort(cells[::-1])
    ordered = cells[:, order]
    starts = jnp.concatenate([jnp.zeros(1, jnp.bool), (ordered[:, 1:] != ordered[:, :-1]).any(0)])
    rank = jnp.cumsum(starts, dtype=jnp.int32)
    vertex = jnp.zeros(pixels, jnp.int32).at[order].set(rank)
    places = jnp.zeros_like(cells).at[:, vertex].set(cells)
    exists = jnp.arange(pixels) <= rank[-1]
    found = []
    for axis in range(dimensions):
        # Sorted by this axis last, a cell and the next one along it stand side by side.
        others = [places[other] for other in range(dimensions) if other != axis]
        order = jnp.lexsort((places[axis], *others, ~exists))
        step = places[:, order[1:]] - places[:, order[:-1]]
        unit = jnp.eye(dimensions, dtype=jnp.int32)[:, axis, None]
        joined = (step == unit).all(0) & exists[order[1:]]
        nobody = jnp.full(pixels, pixels, jnp.int32)
        found += [
            nobody.at[order[1:]].set(jnp.where(joined, order[:-1], pixels)),
            nobody.at[order[:-1]].set(jnp.where(joined, order[1:], pixels)),
        ]
    return vertex, jnp.stack(found)


def _splat(x: Array, vertex: Array) -> Array:
    """Sums [P] of the pixels of each cell."""
    return jnp.zeros_like(x).at[vertex].add(x)


def _ratio(sums: Array, weights: Array) -> Array:
    """Sums divided by weights; 0 where both are 0."""
    return sums / jnp.maximum(weights, 1e-30)


def _bistochastic(pixels: Array, neighbours: Array) -> Array:
    """The diagonal n of D_n, [P]: n · B n is about the number of pixels of each cell."""

    def step(n: Array, _: None) -> tuple[Array, None]:
        blurred = len(neighbours) * n + jnp.append(n, 0.0)[neighbours].sum(0)
        return jnp.sqrt(_ratio(n * pixels, blurred)), None

    n, _ = lax.scan(step, (pixels > 0).astype(pixels.dtype), length=BISTOCHASTIC_STEPS)
    return n


def _bumps(measured: Array, scale: int, sigma: float) -> Array:
    """In each block of S×S pixels a Gaussian around its sample, 0 in the block of a hole; σ in blocks. [S·h, S·w]."""
    place = (np.arange(scale) - scale // 2) / scale
    line = jnp.exp(-jnp.asarray(place**2, jnp.float32) / (2 * sigma**2))
    return jnp.kron(measured.astype(jnp.float32), line[:, None] * line[None])
