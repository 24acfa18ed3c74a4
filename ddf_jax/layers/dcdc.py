"""The dual complementary dynamic convolution of Yan et al., 2022."""

import functools
import math
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import average_pool, global_average, per_sample_conv
from ddf_jax.layers.batch_norm import BatchNorm, norm_relu
from ddf_jax.layers.convolution import Conv, Linear, PointwiseConv
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.involution import Involution, PixelGenerator
from ddf_jax.layers.options import python_numbers


class ContextGenerator(PixelGenerator):
    """LSA's φ: `PixelGenerator` with a depthwise convolution, batch normalisation and ReLU before each 1×1 convolution.

    The filters of a pixel therefore depend on its neighbourhood. `context_kernel_size` is the paper's k_dw.
    """

    def __init__(
        self,
        in_channels: int,
        groups: int,
        taps: int,
        *,
        stride: int,
        reduction: int,
        context_kernel_size: int = 3,
        **dtypes: Any,
    ):
        super().__init__(in_channels, groups, taps, stride=stride, reduction=reduction, **dtypes)
        self.reduce = nnx.Sequential(_Context(in_channels, context_kernel_size, **dtypes), self.reduce)
        self.span = nnx.Sequential(_Context(in_channels // reduction, context_kernel_size, **dtypes), self.span)


class _Context(nnx.Module):
    """Depthwise convolution, batch normalisation and ReLU: [B, H, W, C] to the same shape."""

    def __init__(self, channels: int, kernel_size: int, **dtypes: Any):
        self.conv = Conv(channels, channels, kernel_size=kernel_size, groups=channels, **dtypes)
        self.norm = BatchNorm(channels, **dtypes)

    def __call__(self, x: Array) -> Array:
        return norm_relu(self.norm, self.conv(x))


class SharedBranch(nnx.Module):
    """A convolution of s channels between two 1×1 ones: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].

    It averages stride×stride pixels, squeezes C to s channels with batch normalisation and ReLU, convolves them, and
    expands s to C channels. The inner convolution here is static, 3×3: Conv_small of the ablation.
    """

    def __init__(self, channels: int, squeezed: int, *, stride: int, dilation: int, kernel_size: int, **dtypes: Any):
        self.squeeze = PointwiseConv(channels, squeezed, **dtypes)
        self.norm = BatchNorm(squeezed, **dtypes)
        self.inner = self.inner_conv(squeezed, kernel_size, dilation, **dtypes)
        self.expand = PointwiseConv(squeezed, channels, use_bias=True, **dtypes)
        self.stride = stride

    def inner_conv(self, channels: int, kernel_size: int, dilation: int, **dtypes: Any) -> Any:
        del kernel_size  # of a generated kernel
        return Conv(channels, channels, dilation=dilation, **dtypes)

    def __call__(self, x: Array) -> Array:
        y = norm_relu(self.norm, self.squeeze(average_pool(x, self.stride)))
        return self.expand(self.inner(y))


class GSI(SharedBranch):
    """The global shift-invariant branch: the inner convolution's kernel is generated from the sample's average."""

    def inner_conv(self, channels: int, kernel_size: int, dilation: int, **dtypes: Any) -> Any:
        return GeneratedConv(channels, kernel_size, dilation, **dtypes)


class GeneratedConv(nnx.Module):
    """Convolves each sample with a kernel generated from its average: [B, H, W, s] to the same shape."""

    def __init__(self, channels: int, kernel_size: int, dilation: int, **dtypes: Any):
        self.predict = KernelGenerator(channels, kernel_size, **dtypes)
        self.dilation = dilation

    def __call__(self, x: Array) -> Array:
        return per_sample_conv(x, self.predict(x), dilation=self.dilation)


class KernelGenerator(Linear):
    """One kernel per sample, a fully connected layer of its average: [B, H, W, s] to [B, K, K, s, s]."""

    def __init__(self, channels: int, kernel_size: int, **dtypes: Any):
        self.shape = (kernel_size, kernel_size, channels, channels)
        super().__init__(channels, math.prod(self.shape), **dtypes)

    def __call__(self, inputs: Array, out_sharding: Any = None) -> Array:
        return super().__call__(global_average(inputs), out_sharding).reshape(-1, *self.shape)


def _large(channels: int, squeezed: int, *, stride: int, dilation: int, kernel_size: int, **dtypes: Any) -> Any:
    """Conv_large of the ablation: a static 3×3 convolution of all channels in place of the whole branch."""
    del squeezed, kernel_size
    return Conv(channels, channels, stride=stride, dilation=dilation, **dtypes)


_SHARED = {"gsi": GSI, "conv_small": SharedBranch, "conv_large": _large, None: None}


class DCDC(nnx.Module):
    r"""Dual complementary dynamic convolution: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].

    .. math:: y = \text{LSA}(x) + \text{GSI}(x)

    LSA, local spatial-adaptive, is an involution with filters generated from a neighbourhood (`ContextGenerator`).
    GSI, global shift-invariant, is a convolution of s = ⌊λ√C⌋ channels with a kernel of its own for each sample.

    Args:
        in_channels: C.
        kernel_size: k_lsa, odd.
        stride: of both branches.
        dilation: of both branches, not of LSA's context; the shared branch's in pixels averaged over the stride.
        lsa: whether LSA exists.
        shared: the other branch: "gsi"; its alternatives in the paper's ablation, "conv_small" (a static 3×3
            convolution of s channels) and "conv_large" (of C channels); or None.
        context_kernel_size: k_dw, of LSA's depthwise convolutions.
        shared_kernel_size: k_gsi, of GSI's generated kernel.
        width_factor: λ.
        group_channels: of LSA, as in `Involution`.
        reduction: of LSA, as in `Involution`.
        implementation: of `pallas_kernels.dynamic_filter`.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: both branches are off, `shared` is none of these, or the groups do not divide C.

    Reference: Yan et al., "Dual Complementary Dynamic Convolution", 2022. The paper publishes no code and leaves open
    the positions of strides, biases and normalisations. This layout gives the parameters and FLOPs of its 15 rows of
    classification and 10 of detection: every convolution has no bias and is followed by batch normalisation and ReLU,
    except the last one of each branch, which has a bias.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: DCDC(32, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 15, 20, 32))).shape
    (2, 8, 10, 32)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        kernel_size: int = 7,
        stride: int = 1,
        dilation: int = 1,
        lsa: bool = True,
        shared: Literal["gsi", "conv_small", "conv_large"] | None = "gsi",
        context_kernel_size: int = 3,
        shared_kernel_size: int = 1,
        width_factor: float = 1.0,
        group_channels: int = 16,
        reduction: int = 4,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if shared not in _SHARED:
            raise UserError(f"`shared` must be 'gsi', 'conv_small', 'conv_large' or None, got {shared!r}.")
        if not lsa and shared is None:
            raise UserError("`lsa` must not be False where `shared` is None: there would be no branch.")
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.local = self.shared = nnx.data(None)
        if lsa:
            self.local = Involution(
                in_channels,
                kernel_size=kernel_size,
                stride=stride,
                dilation=dilation,
                group_channels=group_channels,
                reduction=reduction,
                generator=functools.partial(ContextGenerator, context_kernel_size=context_kernel_size),
                implementation=implementation,
                **dtypes,
            )
        if branch := _SHARED[shared]:
            squeezed = math.floor(width_factor * math.sqrt(in_channels))
            options = {"stride": stride, "dilation": dilation, "kernel_size": shared_kernel_size}
            self.shared = branch(in_channels, squeezed, **options, **dtypes)
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        outputs = [branch(x) for branch in (self.local, self.shared) if branch is not None]
        return sum(outputs[1:], start=outputs[0])
