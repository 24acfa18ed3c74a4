"""The correlation layers of FlowNetC and PWC-Net: cost volumes of two feature maps, for optical flow."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import check_feature_map
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import local_correlation


class CostVolume(nnx.Module):
    r"""Similarity of each pixel with those around it in another map: [B, H, W, C] twice to [B, H, W, D²].

    .. math:: y_{p,(i,j)} = \text{leaky\_relu}\Big(\frac{1}{C} \sum_c \text{first}_{p,c} \;
        \text{second}_{p + \text{step}\,(i - r,\, j - r),\, c}\Big), \qquad D = 2r + 1

    with r = displacement/step. Channels are displacements, row by row, from -displacement to displacement; the second
    map is zero outside. It has no parameters.

    Args:
        displacement: the largest one, in pixels along an axis.
        step: pixels between neighbouring displacements, a divisor of the largest one.
        negative_slope: of the leaky ReLU; 1 leaves it out.
        implementation: of `pallas_kernels.local_correlation`.
        dtype: compute dtype (default: that of the first map; float32 for integers); sums are in float32.

    Raises:
        UserError: the step does not divide the displacement, or the maps do not have one shape [B, H, W, C].

    References: Dosovitskiy et al., "FlowNet: Learning Optical Flow with Convolutional Networks", ICCV 2015; Sun et al.,
    "PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume", CVPR 2018.

    >>> import jax, jax.numpy as jnp
    >>> first = second = jnp.ones((2, 15, 20, 32))
    >>> jax.eval_shape(flownet_correlation(), first, second).shape
    (2, 15, 20, 441)
    >>> jax.eval_shape(pwc_correlation(), first, second).shape
    (2, 15, 20, 81)
    """

    @python_numbers
    def __init__(
        self,
        displacement: int,
        *,
        step: int = 1,
        negative_slope: float = 0.1,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
    ):
        if displacement % step:
            raise UserError(f"`step` must divide {displacement=}, got {step}.")
        self.kernel_size, self.step = 2 * displacement // step + 1, step
        self.negative_slope = negative_slope
        self.implementation = implementation
        self.dtype = dtype

    def __call__(self, first: Array, second: Array) -> Array:
        check_feature_map(first, name="first")
        if second.shape != first.shape:
            raise UserError(f"`second` must have the shape of `first`, {first.shape}, got {second.shape}.")
        channels = first.shape[-1]
        first, second = (as_feature_map(x, channels, self.dtype) for x in (first, second))
        costs = local_correlation(
            first,
            second,
            kernel_size=self.kernel_size,
            dilation=self.step,
            scale=1 / channels,
            implementation=self.implementation,
        )
        return jax.nn.leaky_relu(costs[..., 0, :], self.negative_slope)


def flownet_correlation() -> CostVolume:
    """FlowNetC's: displacements of up to 20 pixels in steps of 2, 441 channels (Dosovitskiy et al., ICCV 2015)."""
    return CostVolume(20, step=2)


def pwc_correlation() -> CostVolume:
    """PWC-Net's, of the first map and the second one warped: up to 4 pixels, 81 channels (Sun et al., CVPR 2018)."""
    return CostVolume(4)
