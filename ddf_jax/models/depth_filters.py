"""Depth chosen among what was measured: dynamic filters that carry it to the pixels of a picture."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional.joint_upsampling import blocks, colour_distances, place_distances, window_weights
from pallas_kernels import dynamic_filter, dynamic_upsample

_TAPS = 9  # of 3×3, in both kinds of filters
_EMBEDDED = 8  # numbers of each pixel that pixel-adaptive filters compare
_UNLIKE, _UNLIKE_NEIGHBOUR = 3.0, 8.0  # how far a colour may lower a logit: features must be able to overrule it
_SIGMA_SPACE, _SIGMA_COLOUR, _SIGMA_NEIGHBOUR = 0.6, 0.045, 0.03


class Logits(NamedTuple):
    """Of the softmax over the taps of both filters, in float32."""

    chosen: Array  # [B, h, w, S², 9], of the samples around each block of S×S pixels
    swept: Array  # [B, S·h, S·w, 1, 9], of the pixels around each pixel


class Kind(NamedTuple):
    """A way from features of each pixel to its filters."""

    channels: int  # of the features
    logits: Callable[[Array, int], Logits]  # of features [B, S·h, S·w, channels] and S
    starts_at_zero: bool  # whether features that are 0 have gradients


def _generated(features: Array, scale: int) -> Logits:
    """The features are the logits, as DDF generates its spatial filters."""
    chosen, swept = jnp.split(features, [_TAPS], axis=-1)
    return Logits(blocks(chosen, scale), swept[:, :, :, None])


def _pixel_adaptive(features: Array, scale: int) -> Logits:
    """Gaussians of how unlike the features of two pixels are, as PAC weighs its taps: `-‖f_p - f_q‖² / 2`."""
    chosen, swept = jnp.split(features, [_EMBEDDED], axis=-1)
    return Logits(
        -0.5 * colour_distances(chosen, scale=scale, radius=1), -0.5 * colour_distances(swept, scale=1, radius=1)
    )


KINDS = {
    "generated": Kind(2 * _TAPS, _generated, starts_at_zero=True),
    "pixel_adaptive": Kind(2 * _EMBEDDED, _pixel_adaptive, starts_at_zero=False),
}


class DepthFilters(nnx.Module):
    r"""Spatial dynamic filters over depth: `filters(logits, picture, depth, measured)`, [B, S·h, S·w, 1] in float32.

    First an upsampling by filters of 3×3 low pixels, then sweeps of one filter of 3×3 pixels:

    .. math:: y \leftarrow \sum_q \operatorname{softmax}_q(\mathit{logit}_{p,q} + \mathit{prior}_{p,q}) \; y_{p+q}

    so that depth has the values of surfaces and not those between them. Each sweep ends with what was measured in its
    place. The priors are logits of joint bilateral upsampling over 3×3, with learned widths, and bounded so that
    features can overrule them; a pixel itself has 1 more. Everything is computed in float32.

    Args:
      scale: S ≥ 1.
      sweeps: how often the second filter is applied, at least once.
      param_dtype: storage dtype of the three widths.

    Called with the picture [B, S·h, S·w, C] in [0, 1] less any constant, depth [B, h, w, 1], and `measured`, above 0
    where that depth is not a hole.

    Raises:
      ValueError: `scale` or `sweeps` is less than 1.

    References: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021 (spatial filters from a guidance); Kopf et
    al., "Joint Bilateral Upsampling", SIGGRAPH 2007 (the prior); Cheng et al., "Depth Estimation via Affinity Learned
    with Convolutional Spatial Propagation Network", ECCV 2018 (the sweeps).
    """

    def __init__(self, scale: int, *, sweeps: int = 4, param_dtype: Any = jnp.float32):
        if min(scale, sweeps) < 1:
            raise ValueError(f"`scale` and `sweeps` must be at least 1, got {scale} and {sweeps}.")
        self.scale, self.sweeps = scale, sweeps
        # Logarithms of how precisely place, colour, and a neighbour's colour must agree.
        self.widths = nnx.Param(jnp.zeros(3, param_dtype))

    def choose(self, chosen: Array | float, picture: Array, depth: Array, measured: Array) -> Array:
        """The upsampling alone; a `chosen` of 0 leaves it to the prior."""
        depth = depth.astype(jnp.float32)
        place, colour, _ = self._precisions()
        unlike = colour_distances(picture, scale=self.scale, radius=1) * colour / (2 * _SIGMA_COLOUR**2)
        far = place_distances(scale=self.scale, radius=1) * place / (2 * _SIGMA_SPACE**2)
        weights = window_weights(chosen - far - _bounded(unlike, _UNLIKE), measured)
        return dynamic_upsample(depth, weights[:, :, :, :, None], None, scale=self.scale)

    def __call__(self, logits: Logits, picture: Array, depth: Array, measured: Array) -> Array:
        depth = depth.astype(jnp.float32)
        y = self.choose(logits.chosen, picture, depth, measured)
        unlike = colour_distances(picture, scale=1, radius=1) * self._precisions()[2] / (2 * _SIGMA_NEIGHBOUR**2)
        itself = (
            jnp.zeros((1,) * 4 + (_TAPS,), jnp.float32).at[..., _TAPS // 2].set(1.0)
        )  # counts more than its neighbours
        spatial = window_weights(logits.swept + itself - _bounded(unlike, _UNLIKE_NEIGHBOUR), jnp.ones_like(y))
        known, values = (_in_place(low, self.scale) for low in ((measured > 0).astype(jnp.float32), depth))
        return sweep(self.sweeps, y, spatial, known, values)

    def _precisions(self) -> Array:
        return jnp.exp(self.widths[...].astype(jnp.float32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sweep(count: int, y: Array, spatial: Array, known: Array, values: Array) -> Array:
    """`count` ≥ 1 times: y filtered, then the values where they are known (1, elsewhere 0).

    In a loop, because written out the compiler computes each sweep again in those after it.
    """
    return _sweep_forward(count, y, spatial, known, values)[0]


def _sweep_forward(count: int, y: Array, spatial: Array, known: Array, values: Array) -> tuple[Array, Any]:
    def step(y: Array, _: None) -> tuple[Array, Array]:
        return jnp.where(known > 0, values, dynamic_filter(y, spatial, None)), y

    y, before = jax.lax.scan(step, y, length=count)
    return y, (before, spatial, known, values)


def _sweep_backward(count: int, saved: Any, dy: Array) -> tuple[Array, Array, Array, Array]:
    """The filter is the same in all sweeps, so its cotangent is that of one filtering with the sweeps as channels."""
    before, spatial, known, values = saved

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        dy, dvalues = carry
        dfiltered = (1 - known) * dy
        [before] = jax.vjp(lambda y: dynamic_filter(y, spatial, None), dy)[1](dfiltered)
        return (before, dvalues + known * dy), dfiltered

    (dy, dvalues), dfiltered = jax.lax.scan(step, (dy, jnp.zeros_like(values)), length=count)
    sweeps, dsweeps = (jnp.moveaxis(every[..., 0], 0, -1) for every in (before, dfiltered[::-1]))
    [dspatial] = jax.vjp(lambda spatial: dynamic_filter(sweeps, spatial, None), spatial)[1](dsweeps)
    return dy, dspatial, jnp.zeros_like(known), dvalues


sweep.defvjp(_sweep_forward, _sweep_backward)


def _bounded(x: Array, bound: float) -> Array:
    """About x where it is small, never above `bound`."""
    return bound * -jnp.expm1(-x / bound)


def _in_place(low: Array, scale: int) -> Array:
    """[B, h, w, 1] to [B, S·h, S·w, 1], each value at the pixel it belongs to and 0 elsewhere."""
    at, behind = scale // 2, scale - 1 - scale // 2
    return jax.lax.pad(
        low, jnp.zeros((), low.dtype), ((0, 0, 0), (at, behind, scale - 1), (at, behind, scale - 1), (0, 0, 0))
    )
