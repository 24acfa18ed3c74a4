"""CARAFE, the content-aware reassembly of features of Wang et al., ICCV 2019."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.layers.convolution import Conv, PointwiseConv
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import dynamic_upsample


class CARAFE(nnx.Module):
    r"""Every output pixel is a weighted mean of K×K input pixels: [B, H, W, C] to [B, S·H, S·W, C].

    .. math:: y_{S p + (i, j),\,c} = \sum_t \operatorname{softmax}_t(m_{p,s,g(c)})_t \; x_{p+t,c}, \qquad s = i S + j

    The logits m of the S² sub-pixels are a 1×1 convolution of x to `compressed_channels` and a convolution of that to
    G·T·S² channels. The softmax runs over the T taps, in float32 (float64 for float64).

    Args:
        in_channels: C.
        scale: S ≥ 1.
        kernel_size: K of the weighted mean, odd.
        groups: G, groups of channels with weights of their own.
        compressed_channels: between the two convolutions.
        encoder_kernel_size: of the second convolution.
        encoder_dilation: of the second convolution.
        implementation: of `pallas_kernels.dynamic_upsample`.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the groups do not divide C.

    Reference: Wang et al., "CARAFE: Content-Aware ReAssembly of FEatures", ICCV 2019.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: CARAFE(16, scale=2, compressed_channels=8, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 7, 16))).shape
    (2, 10, 14, 16)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        scale: int = 2,
        kernel_size: int = 5,
        groups: int = 1,
        compressed_channels: int = 64,
        encoder_kernel_size: int = 3,
        encoder_dilation: int = 1,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if in_channels % groups:
            raise UserError(f"`groups` must divide `in_channels`, got {groups=} for {in_channels=}.")
        options = {"use_bias": True, "dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.channel_compressor = PointwiseConv(
            in_channels, compressed_channels, kernel_init=nnx.initializers.xavier_uniform(), **options
        )
        # Small at first, so that the weights start near a plain mean.
        options["kernel_init"] = nnx.initializers.normal(0.001)
        logits = groups * kernel_size**2 * scale**2
        if encoder_kernel_size == 1:
            self.content_encoder = PointwiseConv(compressed_channels, logits, **options)
        else:
            sizes = {"kernel_size": encoder_kernel_size, "dilation": encoder_dilation}
            self.content_encoder = Conv(compressed_channels, logits, **sizes, **options)
        self.shape = (groups, kernel_size**2, scale**2)
        self.scale = scale
        self.implementation = implementation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        logits = self.content_encoder(self.channel_compressor(x))
        logits = jnp.moveaxis(logits.reshape(*x.shape[:3], *self.shape), -1, 3)  # [B, H, W, S², G, T]
        return dynamic_upsample(
            x, logits, None, scale=self.scale, normalize="softmax", implementation=self.implementation
        )
