"""Depth as a convex combination of valid neighbours: dynamic filters that upsample and propagate it along an image."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import blocks, colour_distances, place_distances, window_logits
from ddf_jax.layers.options import python_numbers
from pallas_kernels import dynamic_filter, dynamic_upsample

_TAPS = 9  # of the 3×3 windows of both filters
_EMBEDDING = 8  # features of a pixel that a pixel-adaptive filter compares
# The largest reduction of a logit by a difference of colour: features must be able to overrule the prior.
_COLOUR_BOUND, _NEIGHBOUR_COLOUR_BOUND = 3.0, 8.0
_SIGMA_SPACE, _SIGMA_COLOUR, _SIGMA_NEIGHBOUR = 0.6, 0.045, 0.03


class Logits(NamedTuple):
    """Logits of the softmax over the taps of both filters, in float32."""

    upsampling: Array  # [B, h, w, S², 9], over the samples around each block of S×S pixels
    propagation: Array  # [B, S·h, S·w, 1, 9], over the pixels around each pixel


class Kind(NamedTuple):
    """How the features of a pixel become its filters."""

    channels: int  # of the features
    logits: Callable[[Array, int], Logits]  # of features [B, S·h, S·w, channels] and S
    starts_at_zero: bool  # whether features of 0 have gradients


def _generated(features: Array, scale: int) -> Logits:
    """The features are the logits, as in DDF's spatial branch."""
    upsampling, propagation = jnp.split(features, [_TAPS], axis=-1)
    return Logits(blocks(upsampling, scale), propagation[:, :, :, None])


def _pixel_adaptive(features: Array, scale: int) -> Logits:
    """Gaussians of the difference of two pixels' features, as in PAC: `-‖f_p - f_q‖² / 2`."""
    upsampling, propagation = jnp.split(features, [_EMBEDDING], axis=-1)
    return Logits(
        -0.5 * colour_distances(upsampling, scale=scale, radius=1),
        -0.5 * colour_distances(propagation, scale=1, radius=1),
    )


KINDS = {
    "generated": Kind(2 * _TAPS, _generated, starts_at_zero=True),
    "pixel_adaptive": Kind(2 * _EMBEDDING, _pixel_adaptive, starts_at_zero=False),
}


class DepthFilters(nnx.Module):
    r"""Spatial dynamic filters over depth: `filters(logits, image, depth, valid)`, [B, S·h, S·w, 1] in float32.

    One upsampling by filters of 3×3 low-resolution pixels is followed by iterations of one filter of 3×3 pixels:

    .. math:: y_p \leftarrow \sum_q \operatorname{softmax}_q(\mathit{logit}_{p,q} + \mathit{prior}_{p,q}) \; y_{p+q}

    Every value is a convex combination of valid neighbours, so depth keeps the values of surfaces instead of values
    between them. Each iteration restores the measured samples. The priors are the logits of joint bilateral upsampling
    over 3×3 with learned widths, bounded so that features can overrule them; the centre tap has 1 more. Everything is
    computed in float32.

    Args:
        scale: S ≥ 1.
        iterations: propagation iterations, how often the second filter is applied; at least 1.
        param_dtype: storage dtype of the three widths.

    It is called with an image [B, S·h, S·w, C] in [0, 1] (minus any constant), depth [B, h, w, 1], and `valid` of
    depth's shape, above 0 where depth was measured.

    Raises:
        UserError: `scale` or `iterations` is no int of at least 1.

    References: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021 (spatial filters from a guidance); Kopf et
    al., "Joint Bilateral Upsampling", SIGGRAPH 2007 (the prior); Cheng et al., "Depth Estimation via Affinity Learned
    with Convolutional Spatial Propagation Network", ECCV 2018 (the propagation).
    """

    @python_numbers
    def __init__(self, scale: int, *, iterations: int = 4, param_dtype: Any = jnp.float32):
        self.scale, self.iterations = scale, iterations
        # Log precisions of position, colour, and a neighbour's colour.
        self.widths = nnx.Param(jnp.zeros(3, param_dtype))

    def upsample(self, logits: Array | float, image: Array, depth: Array, valid: Array) -> Array:
        """The upsampling alone; logits of 0 leave the prior."""
        depth = depth.astype(jnp.float32)
        position, colour, _ = self._precisions()
        colour_cost = colour_distances(image, scale=self.scale, radius=1) * colour / (2 * _SIGMA_COLOUR**2)
        position_cost = place_distances(scale=self.scale, radius=1) * position / (2 * _SIGMA_SPACE**2)
        logits = window_logits(logits - position_cost - _bounded(colour_cost, _COLOUR_BOUND), valid)
        return dynamic_upsample(depth, logits[:, :, :, :, None], None, scale=self.scale, normalize="softmax")

    def __call__(self, logits: Logits, image: Array, depth: Array, valid: Array) -> Array:
        depth = depth.astype(jnp.float32)
        y = self.upsample(logits.upsampling, image, depth, valid)
        cost = colour_distances(image, scale=1, radius=1) * self._precisions()[2] / (2 * _SIGMA_NEIGHBOUR**2)
        centre = jnp.zeros((1,) * 4 + (_TAPS,), jnp.float32).at[..., _TAPS // 2].set(1.0)
        logit = logits.propagation + centre - _bounded(cost, _NEIGHBOUR_COLOUR_BOUND)
        spatial = jax.nn.softmax(window_logits(logit, jnp.ones_like(y)))  # once for all iterations
        valid_mask, samples = (_scatter(low, self.scale) for low in ((valid > 0).astype(jnp.float32), depth))
        return propagate(self.iterations, y, spatial, valid_mask, samples)

    def _precisions(self) -> Array:
        return jnp.exp(self.widths[...].astype(jnp.float32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def propagate(iterations: int, y: Array, spatial: Array, valid_mask: Array, samples: Array) -> Array:
    """Filters y `iterations` ≥ 1 times and restores the samples where `valid_mask` is 1 (elsewhere 0) after each.

    It is a loop because XLA recomputes each iteration of an unrolled one in all iterations after it.
    """
    return _propagate_forward(iterations, y, spatial, valid_mask, samples)[0]


def _propagate_forward(
    iterations: int, y: Array, spatial: Array, valid_mask: Array, samples: Array
) -> tuple[Array, Any]:
    def step(y: Array, _: None) -> tuple[Array, Array]:
        return jnp.where(valid_mask > 0, samples, dynamic_filter(y, spatial, None)), y

    y, inputs = jax.lax.scan(step, y, length=iterations)
    return y, (inputs, spatial, valid_mask, samples)


def _propagate_backward(iterations: int, residuals: Any, dy: Array) -> tuple[Array, Array, Array, Array]:
    """All iterations share the filter: its cotangent is that of one filtering with the iterations as channels."""
    inputs, spatial, valid_mask, samples = residuals

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        dy, dsamples = carry
        dfiltered = (1 - valid_mask) * dy
        [dinput] = jax.vjp(lambda y: dynamic_filter(y, spatial, None), dy)[1](dfiltered)
        return (dinput, dsamples + valid_mask * dy), dfiltered

    (dy, dsamples), dfiltered = jax.lax.scan(step, (dy, jnp.zeros_like(samples)), length=iterations)
    stacked, dstacked = (jnp.moveaxis(every[..., 0], 0, -1) for every in (inputs, dfiltered[::-1]))
    [dspatial] = jax.vjp(lambda spatial: dynamic_filter(stacked, spatial, None), spatial)[1](dstacked)
    return dy, dspatial, jnp.zeros_like(valid_mask), dsamples


propagate.defvjp(_propagate_forward, _propagate_backward)


def _bounded(x: Array, bound: float) -> Array:
    """About x where x is small, never above `bound`."""
    return bound * -jnp.expm1(-x / bound)


def _scatter(low: Array, scale: int) -> Array:
    """[B, h, w, 1] to [B, S·h, S·w, 1], each value at the pixel where it was sampled and 0 elsewhere."""
    before, after = scale // 2, scale - 1 - scale // 2
    spread = (before, after, scale - 1)
    return jax.lax.pad(low, jnp.zeros((), low.dtype), ((0, 0, 0), spread, spread, (0, 0, 0)))
