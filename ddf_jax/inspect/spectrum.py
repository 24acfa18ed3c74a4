"""How much of a map is coarse and how much is fine: the power spectrum of its discrete cosine transform."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.fft import dctn

_MOST_RINGS = 32  # up to 1: a curve shows no more


def power_spectrum(maps: Array) -> tuple[np.ndarray, Array]:
    r"""Mean power at each spatial frequency: [B, H, W, C] to frequencies [N] and powers [B, N].

    The orthonormal two-dimensional DCT-II of every channel, squared and averaged over the channels, then over the
    coefficients (u, v) whose radius :math:`\sqrt{(u/H)^2 + (v/W)^2}` rounds to the same multiple of 1/min(H, W, 32). 1
    is the finest that pixels can hold along an axis; diagonals reach √2. Computed in float32.

    Reference: Hu et al., "Bi-volution", 2022, Figure 4, which does not say how it averages.
    """
    height, width = maps.shape[1:3]
    power = (dctn(maps.astype(jnp.float32), axes=(1, 2), norm="ortho") ** 2).mean(-1).reshape(len(maps), -1)
    count = min(height, width, _MOST_RINGS)
    radius = np.hypot(np.arange(height)[:, None] / height, np.arange(width)[None] / width)
    rings, ring_of = np.unique(np.rint(radius * count).astype(int), return_inverse=True)
    ring_of = ring_of.ravel()
    weights = (ring_of[:, None] == np.arange(rings.size)) / np.bincount(ring_of)
    return rings / count, power @ jnp.asarray(weights, jnp.float32)
