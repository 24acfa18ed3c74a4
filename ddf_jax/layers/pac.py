"""The pixel-adaptive convolution of Su et al., CVPR 2019."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.layers.convolution import Initializer, normal_fan_out
from pallas_kernels import dynamic_filter
from pallas_kernels.dynamic_filter.spec import accumulator_dtype


class PAC(nnx.Module):
    r"""A depthwise filter, adapted to a guidance: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].

    .. math:: y_{p,c} = \sum_t \exp\!\big(-\tfrac12 \lVert f_p - f_{p+t} \rVert^2\big) \; w_{t,c} \; x_{p+t,c}

    The Gaussian of the guidance f is the dynamic filter's spatial filter, and the learned w its channel filter, the
    same for every sample. The paper's convolution also mixes channels, tap by tap, which no fused filter can do; a
    1×1 convolution behind this one mixes them once.

    Args:
      in_channels: C.
      kernel_size: K, odd.
      stride, dilation: of the filter.
      learned: whether w exists; without it every tap has the weight 1 (the paper's pooling, a joint bilateral filter
        that is not normalised).
      implementation: of `pallas_kernels.dynamic_filter`.
      dtype: compute dtype (default: that of x); param_dtype: storage dtype.

    Reference: Su et al., "Pixel-Adaptive Convolutional Neural Networks", CVPR 2019, Eq. 3.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x, guidance: PAC(8, stride=2, rngs=nnx.Rngs(0))(x, guidance)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 8)), jnp.ones((2, 5, 4, 3))).shape
    (2, 3, 2, 8)
    """

    def __init__(
        self,
        in_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        learned: bool = True,
        kernel_init: Initializer = normal_fan_out,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.filters = nnx.data(None)
        if learned:
            filters = kernel_init(rngs.params(), (kernel_size, kernel_size, 1, in_channels), param_dtype)
            self.filters = nnx.Param(filters.reshape(kernel_size**2, in_channels))
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation
        self.implementation = implementation
        self.dtype = dtype

    def __call__(self, x: Array, guidance: Array | None = None) -> Array:
        """x [B, H, W, C] and a guidance [B, H, W, any number of channels], by default x itself."""
        x = x if self.dtype is None else x.astype(self.dtype)
        guidance = x if guidance is None else guidance
        if guidance.shape[:3] != x.shape[:3]:
            raise ValueError(f"`guidance` must be [B, H, W, …] = {x.shape[:3]} as x is, got {guidance.shape}.")
        gaussian = gaussian_filters(guidance, self.kernel_size, stride=self.stride, dilation=self.dilation)
        channel = None
        if self.filters is not None:
            weights = self.filters[...].astype(x.dtype)
            channel = jnp.broadcast_to(weights[None], (x.shape[0], *weights.shape))
        return dynamic_filter(
            x,
            gaussian[..., None, :].astype(x.dtype),
            channel,
            stride=self.stride,
            dilation=self.dilation,
            implementation=self.implementation,
        )


def gaussian_filters(guidance: Array, kernel_size: int, *, stride: int = 1, dilation: int = 1) -> Array:
    r"""How alike a pixel's neighbours are to it, :math:`\exp(-\frac12 \lVert f_p - f_{p+t} \rVert^2)`.

    [B, H, W, F] to [B, ceil(H/stride), ceil(W/stride), T], in float32 (float64 for float64).
    """
    height, width = guidance.shape[1:3]
    wide = guidance.astype(accumulator_dtype(guidance))
    border = dilation * (kernel_size // 2)
    padded = jnp.pad(wide, ((0, 0), (border, border), (border, border), (0, 0)))
    centre = wide[:, ::stride, ::stride]
    offsets = range(0, 2 * border + 1, dilation)
    views = (padded[:, i : i + height : stride, j : j + width : stride] for i in offsets for j in offsets)
    distances = [((view - centre) ** 2).sum(-1) for view in views]
    return jnp.exp(-jnp.stack(distances, axis=-1) / 2)
