"""Convolution with one kernel for each sample of the batch."""

import jax.numpy as jnp
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional.checks import check_feature_map
from ddf_jax.functional.height import on_rows
from ddf_jax.functional.views import strided


def per_sample_conv(x: Array, kernels: Array, *, stride: int = 1, dilation: int = 1) -> Array:
    r"""Convolves each sample with its own kernel, in one batched contraction.

    .. math:: y_{b,p,d} = \sum_{t,c} k_{b,t,c,d} \; x_{b,\,stride \cdot p + dilation \cdot t,\,c}

    The T shifted, zero-padded views of x are concatenated and contracted with the kernels over T·C. The batch stays a
    batch dimension, so inputs sharded over it need no collective, forward and backward. (A convolution grouped by
    samples moves the batch into the channels and does. On a CPU it is also several times slower.)

    Args:
        x: [B, H, W, C].
        kernels: [B, K, K, C, D] with an odd K.
        stride: of the convolution.
        dilation: of the convolution.

    Returns:
        [B, ceil(H/stride), ceil(W/stride), D] in the dtype of x.

    Raises:
        UserError: x or the kernels are not of that shape.
    """
    check_feature_map(x)
    batch, _, _, channels = x.shape
    size, outputs = (kernels.shape[1], kernels.shape[4]) if kernels.ndim == 5 else (0, 0)
    if kernels.shape != (batch, size, size, channels, outputs) or size % 2 == 0:
        raise UserError(f"`kernels` must be [B, K, K, C, D] with an odd K for {x.shape=}, got {kernels.shape}.")
    half = dilation * (size // 2)

    def convolved(x: Array, kernels: Array, rows: tuple[int, int]) -> Array:
        padded = jnp.pad(x, ((0, 0), rows, (half, half), (0, 0)))
        height, width = (side - 2 * half for side in padded.shape[1:3])
        offsets = range(0, 2 * half + 1, dilation)
        views = [strided(padded, stride, start=(i, j), size=(height, width)) for i in offsets for j in offsets]
        return jnp.einsum("bhwi,bid->bhwd", jnp.concatenate(views, axis=-1), kernels)

    kernels = kernels.astype(x.dtype).reshape(batch, -1, outputs)
    return on_rows(convolved, x, kernels, padding=(half, half), span=2 * half, stride=stride, per_sample=True)
