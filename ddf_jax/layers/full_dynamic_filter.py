"""The full dynamic filter, a matrix for every pixel and tap."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import check_odd, strided
from ddf_jax.layers.convolution import PointwiseConv
from ddf_jax.layers.initializers import Initializer, normal_fan_out
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers


class FullDynamicFilter(nnx.Module):
    r"""Filters every pixel with a generated convolution of its own: [B, H, W, C] to the same shape.

    .. math:: y_{p,d} = \sum_{t,c} D_{p,t,c,d} \; x_{p+t,c}, \qquad D_p = W x_p

    W has C³K² parameters and D needs C²K² values for every pixel, 2.25 MiB of float32 for 256 channels and K = 3: it is
    what DDF decouples, for comparison at small sizes.

    Args:
        channels: C.
        kernel_size: K, odd.
        kernel_init: initialiser of W.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the kernel size is even.

    Reference: De Brabandere et al., "Dynamic Filter Networks", NeurIPS 2016; DyFilter in Table 1 of Zhou et al.,
    "Decoupled Dynamic Filter Networks", CVPR 2021.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: FullDynamicFilter(8, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 8))).shape
    (2, 5, 4, 8)
    """

    @python_numbers
    def __init__(
        self,
        channels: int,
        *,
        kernel_size: int = 3,
        kernel_init: Initializer = normal_fan_out,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_odd(kernel_size=kernel_size)
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.generate = PointwiseConv(channels, channels**2 * kernel_size**2, kernel_init=kernel_init, **dtypes)
        self.kernel_size = kernel_size
        self.channels = channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.channels, self.dtype)
        half, (_, height, width, _) = self.kernel_size // 2, x.shape
        padded = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
        taps = range(self.kernel_size)
        views = [strided(padded, 1, start=(i, j), size=(height, width)) for i in taps for j in taps]
        filters = self.generate(x).reshape(*x.shape[:3], -1, self.channels)
        return jnp.einsum("bhwi,bhwid->bhwd", jnp.concatenate(views, axis=-1), filters)
