"""Where a class is seen: Grad-CAM, the class activation map from gradients."""

import jax
import jax.numpy as jnp
from jax import Array


def grad_cam(features: Array, gradients: Array) -> Array:
    r"""The places that speak for a class: [B, H, W, C] twice to [B, H, W], the largest value of each map 1.

    .. math:: \text{relu}\Big(\sum_c \alpha_c A_{p,c}\Big),
        \qquad \alpha_c = \frac{1}{HW} \sum_p \frac{\partial y}{\partial A_{p,c}}

    A map that is nowhere positive is all 0: no place speaks for the class. Computed in float32.

    Args:
      features: A, the output of a layer.
      gradients: of the class's logit y with respect to A.

    Reference: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization",
    ICCV 2017, Eq. 1 and 2.
    """
    weights = gradients.astype(jnp.float32).mean((1, 2))
    maps = jax.nn.relu(jnp.einsum("bhwc,bc->bhw", features.astype(jnp.float32), weights))
    largest = maps.max((1, 2), keepdims=True)
    return maps / jnp.where(largest > 0, largest, 1)
