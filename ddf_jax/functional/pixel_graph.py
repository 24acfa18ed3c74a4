"""Weighted least squares over the pixels of an image, and the linear systems of joint upsampling.

Arrays are those of one image, without a batch axis: `jax.vmap` maps them over a batch, so that no picture's number of
iterations or rounding depends on another one's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax


class EdgeWeights(NamedTuple):
    """One number for each pair of pixels that are neighbours in a row or a column."""

    down: Array  # [H - 1, W], of a pixel and the one below it
    right: Array  # [H, W - 1], of a pixel and the one on its right


def squared_differences(x: Array) -> EdgeWeights:
    """‖x_p - x_q‖² of the neighbours of [H, W, C]."""
    return EdgeWeights(
        down=jnp.square(x[1:] - x[:-1]).sum(-1),
        right=jnp.square(x[:, 1:] - x[:, :-1]).sum(-1),
    )


def place_samples(low: Array, scale: int) -> Array:
    """Low-resolution [h, w] on a grid of [S·h, S·w], sample (i, j) at (S·i + S // 2, S·j + S // 2); 0 elsewhere."""
    border = (scale // 2, scale - 1 - scale // 2, scale - 1)
    return lax.pad(low, jnp.zeros((), low.dtype), (border, border))


def fit_samples(
    samples: Array, confidence: Array, edges: EdgeWeights, start: Array, *, iterations: int, tolerance: float
) -> Array:
    r"""The minimiser of :math:`\sum_p c_p (u_p - x_p)^2 + \sum_{(p, q)} w_{pq} (u_p - u_q)^2`, [H, W].

    Args:
        samples: x, [H, W].
        confidence: c ≥ 0, [H, W].
        edges: w ≥ 0, each pair of neighbours once.
        start: the first guess, [H, W]. Pixels that no path of positive weights joins to a confidence keep it.
        iterations: at most, of conjugate gradients.
        tolerance: of the residual, as `solve` defines it.
    """

    def normal_equations(u: Array) -> Array:
        down, right = edges.down * (u[1:] - u[:-1]), edges.right * (u[:, 1:] - u[:, :-1])
        return confidence * u - _at_ends(EdgeWeights(down, right), -1.0)

    diagonal = confidence + _at_ends(edges, 1.0)
    return solve(normal_equations, confidence * samples, diagonal, start, iterations=iterations, tolerance=tolerance)


def _at_ends(edges: EdgeWeights, sign: float) -> Array:
    """For each pixel the sum of its edges: as they are where it comes first, times `sign` where it comes second."""
    before, after, no = (1, 0, 0), (0, 1, 0), (0, 0, 0)
    zero = jnp.zeros((), edges.down.dtype)
    firsts = lax.pad(edges.down, zero, (after, no)) + lax.pad(edges.right, zero, (no, after))
    seconds = lax.pad(edges.down, zero, (before, no)) + lax.pad(edges.right, zero, (no, before))
    return firsts + sign * seconds


def solve(
    operator: Callable[[Array], Array],
    right_side: Array,
    diagonal: Array,
    start: Array,
    *,
    iterations: int,
    tolerance: float,
) -> Array:
    """x of `operator(x) = right_side` for a symmetric positive semidefinite operator.

    Conjugate gradients with Jacobi's preconditioner D, the diagonal, as a scaling: on D^-½ A D^-½. They end when the
    residual of that system is `tolerance` times its right side, which is small also where all weights are, or after so
    many iterations. Derivatives with respect to the right side and to what the operator holds are those of the
    solution (one more system), not of the iterations.

    Args:
        operator: A.
        right_side: b.
        diagonal: of A; 0 in rows of zeros, whose x stays at the start.
        start: the first x.
        iterations: at most.
        tolerance: of the residual.
    """
    root = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    scaled, _ = jax.scipy.sparse.linalg.cg(
        lambda x: operator(x / root) / root,
        right_side / root,
        lax.stop_gradient(start * root),
        tol=tolerance,
        maxiter=iterations,
    )
    return scaled / root
