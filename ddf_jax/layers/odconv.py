"""The omni-dimensional dynamic convolution of Li et al., ICLR 2022."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import check_odd, check_positive, global_average, per_sample_conv, pixel_product, strided
from ddf_jax.layers.batch_norm import BatchNorm, norm_relu
from ddf_jax.layers.convolution import Linear
from ddf_jax.layers.initializers import Initializer, normal_fan_out, stacked
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from ddf_jax.layers.progress import annealed


class ODConv(nnx.Module):
    r"""A convolution with attention along all four axes of its kernels: [B, H, W, C] to [B, Ho, Wo, out_channels].

    .. math:: y = \alpha_f \odot \Big(\sum_i \alpha_{w,i} \, \alpha_s \odot W_i\Big) * (\alpha_c \odot x)

    with a sample's own weights of the input channels, of the taps, of the kernels and of the output channels. Three are
    sigmoids and the weights of the kernels a softmax of layers, divided by a temperature, on one hidden vector,
    ``relu(norm(W · average(x)))``. A 1×1 convolution has no weights of taps, and one kernel none of kernels.

    In training the temperature goes from `temperature` to 1 over the first share `annealing` of the run, as far as
    `ddf_jax.layers.progress.training_progress` tells how far it has come; everywhere else it is 1.

    Args:
        in_channels: C.
        out_channels: of every kernel.
        kernel_size: K, odd.
        stride: of the convolution; Ho = ceil(H/stride), Wo = ceil(W/stride).
        dilation: of the convolution.
        kernels: their number.
        reduction: ratio of C to the hidden units.
        min_hidden: the least number of hidden units.
        temperature: at the beginning of training.
        annealing: share of the training; the authors' code anneals in the first 10 epochs, here of 100.
        kernel_init: initialiser of every kernel.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the kernel size is even, the temperature is not positive, or the share is none.

    Reference: Li et al., "Omni-Dimensional Dynamic Convolution", ICLR 2022; sizes as in its code.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: ODConv(8, 12, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 5, 4, 8))).shape
    (2, 3, 2, 12)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        kernels: int = 1,
        reduction: int = 16,
        min_hidden: int = 16,
        temperature: float = 30.0,
        annealing: float = 0.1,
        kernel_init: Initializer = normal_fan_out,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_odd(kernel_size=kernel_size)
        check_positive(temperature=temperature)
        if not 0 <= annealing <= 1:
            raise UserError(f"`annealing` must be a share of the training, from 0 to 1, got {annealing}.")
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(stacked(kernel_init, rngs.params(), kernels, shape, param_dtype))
        self.attention = KernelAttention(
            in_channels,
            out_channels,
            taps=kernel_size**2,
            kernels=kernels,
            hidden=max(in_channels // reduction, min_hidden),
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.temperature = temperature
        self.annealing = annealing
        self.stride = stride
        self.dilation = dilation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        weights = self.attention(x, annealed(self.temperature, 1.0, share=self.annealing))
        y = self._convolved(x * weights.inputs[:, None, None], weights)
        return y * weights.outputs[:, None, None]

    def _convolved(self, x: Array, weights: "KernelWeights") -> Array:
        kernel = self.kernel[...].astype(x.dtype)
        _, size, _, *channels = kernel.shape
        if weights.taps is None and weights.kernels is None:  # the same kernel for all samples
            # In memory, for the reason that `PointwiseConv` has.
            views = x if self.stride == 1 else jax.lax.optimization_barrier(strided(x, self.stride))
            return pixel_product(views, kernel.reshape(channels), (((3,), (0,)), ((), ())))
        mixed = kernel if weights.kernels is None else jnp.einsum("bn,nhwio->bhwio", weights.kernels, kernel)
        if weights.taps is not None:
            mixed = mixed * weights.taps.reshape(-1, size, size)[..., None, None]
        return per_sample_conv(x, mixed, stride=self.stride, dilation=self.dilation)


class KernelWeights(NamedTuple):
    """Weights of the axes of a sample's kernels; None where there is one tap or one kernel."""

    inputs: Array  # [B, C]
    outputs: Array  # [B, out_channels]
    taps: Array | None  # [B, T]
    kernels: Array | None  # [B, kernels]


class KernelAttention(nnx.Module):
    """The weights of `ODConv`, from the average of the sample."""

    def __init__(self, in_channels: int, out_channels: int, *, taps: int, kernels: int, hidden: int, **dtypes: Any):
        heads: dict[str, Any] = {"kernel_init": normal_fan_out, "bias_init": nnx.initializers.zeros, **dtypes}
        self.squeeze = Linear(in_channels, hidden, use_bias=False, kernel_init=normal_fan_out, **dtypes)
        self.norm = BatchNorm(hidden, **dtypes)
        self.inputs = Linear(hidden, in_channels, **heads)
        self.outputs = Linear(hidden, out_channels, **heads)
        self.taps = Linear(hidden, taps, **heads) if taps > 1 else None
        self.kernels = Linear(hidden, kernels, **heads) if kernels > 1 else None

    def __call__(self, x: Array, temperature: Any) -> KernelWeights:
        hidden = norm_relu(self.norm, self.squeeze(global_average(x)))
        scale = jnp.asarray(1 / temperature, x.dtype)
        return KernelWeights(
            inputs=jax.nn.sigmoid(self.inputs(hidden) * scale),
            outputs=jax.nn.sigmoid(self.outputs(hidden) * scale),
            taps=None if self.taps is None else jax.nn.sigmoid(self.taps(hidden) * scale),
            kernels=None if self.kernels is None else jax.nn.softmax(self.kernels(hidden) * scale),
        )
