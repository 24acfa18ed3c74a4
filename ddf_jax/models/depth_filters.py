"""Depth that is chosen, not computed: dynamic filters that carry measured depth to the pixels of a picture."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.layers.joint_upsampling import blocks, colour_distances, place_distances, window_weights
from pallas_kernels import dynamic_filter, dynamic_upsample

_TAPS = 9  # of 3×3, in both kinds of filters
_UNLIKE, _UNLIKE_NEIGHBOUR = 3.0, 8.0  # how far a colour may lower a logit: features must be able to overrule it
_SIGMA_SPACE, _SIGMA_COLOUR, _SIGMA_NEIGHBOUR = 0.6, 0.045, 0.03
_SWEEPS = 4


class DepthFilters(nnx.Module):
    r"""Spatial dynamic filters over depth, generated from features of each pixel: `features` [B, S·h, S·w, channels].

    First an upsampling by filters of 3×3 low pixels, then four sweeps of one filter of 3×3 pixels, then a residual:

    .. math:: y \leftarrow \sum_q \operatorname{softmax}_q(f_{p,q} + \mathit{prior}_{p,q}) \; y_{p+q}

    so that depth has the values of surfaces and not those between them. Each sweep ends with what was measured in its
    place. The priors are logits of joint bilateral upsampling over 3×3, with learned widths, and bounded so that
    features can overrule them; a pixel itself has 1 more. Everything is computed in float32.

    Args:
      scale: S ≥ 1.
      param_dtype: storage dtype of the three widths.

    References: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021 (spatial filters from a guidance); Kopf et
    al., "Joint Bilateral Upsampling", SIGGRAPH 2007 (the prior); Cheng et al., "Depth Estimation via Affinity Learned
    with Convolutional Spatial Propagation Network", ECCV 2018 (the sweeps).
    """

    channels = 2 * _TAPS + 1

    def __init__(self, scale: int, *, param_dtype: Any = jnp.float32):
        self.scale = scale
        # Logarithms of how precisely place, colour, and a neighbour's colour must agree.
        self.widths = nnx.Param(jnp.zeros(3, param_dtype))

    def prior(self, picture: Array) -> Array:
        """Logits [B, h, w, S², 9] of the upsampling: how near samples are and how alike their colours."""
        place, colour, _ = self._precisions()
        unlike = colour_distances(picture, scale=self.scale, radius=1) * colour / (2 * _SIGMA_COLOUR**2)
        far = place_distances(scale=self.scale, radius=1) * place / (2 * _SIGMA_SPACE**2)
        return -far - _bounded(unlike, _UNLIKE)

    def choose(self, logits: Array, depth: Array, measured: Array) -> Array:
        """Depth [B, S·h, S·w, 1] of the most like samples."""
        return dynamic_upsample(depth, window_weights(logits, measured)[:, :, :, :, None], None, scale=self.scale)

    def __call__(self, features: Array, prior: Array, picture: Array, depth: Array, measured: Array) -> Array:
        """Depth [B, S·h, S·w, 1] in float32, from depth and whether it was measured, both [B, h, w, 1]."""
        chosen, swept, residual = jnp.split(features.astype(jnp.float32), [_TAPS, 2 * _TAPS], axis=-1)
        y = self.choose(prior + blocks(chosen, self.scale), depth, measured)
        unlike = colour_distances(picture, scale=1, radius=1) * self._precisions()[2] / (2 * _SIGMA_NEIGHBOUR**2)
        itself = jax.nn.one_hot(_TAPS // 2, _TAPS, dtype=jnp.float32).reshape(
            1, 1, 1, 1, _TAPS
        )  # counts more than its neighbours
        logits = swept[:, :, :, None] + itself - _bounded(unlike, _UNLIKE_NEIGHBOUR)
        spatial = window_weights(logits, jnp.ones_like(y))
        known, values = _in_place(measured, self.scale), _in_place(depth, self.scale)
        for _ in range(_SWEEPS):
            y = jnp.where(known > 0, values, dynamic_filter(y, spatial, None))
        return y + residual

    def _precisions(self) -> Array:
        return jnp.exp(self.widths[...].astype(jnp.float32))


def _bounded(x: Array, bound: float) -> Array:
    """About x where it is small, never above `bound`."""
    return bound * -jnp.expm1(-x / bound)


def _in_place(low: Array, scale: int) -> Array:
    """[B, h, w, 1] to [B, S·h, S·w, 1], each value at the pixel it belongs to and 0 elsewhere."""
    at, behind = scale // 2, scale - 1 - scale // 2
    return jax.lax.pad(
        low, jnp.zeros((), low.dtype), ((0, 0, 0), (at, behind, scale - 1), (at, behind, scale - 1), (0, 0, 0))
    )
