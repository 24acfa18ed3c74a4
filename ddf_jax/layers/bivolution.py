"""The Bi-volution of Hu et al., 2022: a dynamic filter generated from a neighbourhood plus a static convolution."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import global_average
from ddf_jax.layers.convolution import Conv, Linear, PointwiseConv
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.involution import Involution
from ddf_jax.layers.options import python_numbers


class SpatialAugmentation(nnx.Module):
    r"""SAKG, spatially augmented kernel generation: context for a filter's generation, [B, H, W, C] to the same shape.

    .. math:: \text{context}(x) \cdot \text{sigmoid}(W \, \text{average}(x) + b)

    The context is a depthwise Δ×Δ convolution, the channels' weights are a fully connected layer of the global average.
    The paper describes both in words and states their cost, Δ²·HWC + HWC + C². Their combination is our choice: a
    product, as in attention, since the paper calls the second part attention.

    Args:
        channels: C.
        context_kernel_size: Δ, odd.
        dilation: of the context's convolution.
        reduction: makes two layers with C/reduction units between them out of the fully connected one.
        pointwise: a 1×1 convolution follows the context's, as in a depthwise separable one. Its C²·HW are not in the
            paper's cost.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Reference: Hu et al., "Bi-volution", 2022, Section 3.2.
    """

    @python_numbers
    def __init__(
        self,
        channels: int,
        *,
        context_kernel_size: int = 3,
        dilation: int = 1,
        reduction: int = 1,
        pointwise: bool = False,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.context = Conv(
            channels,
            channels,
            kernel_size=context_kernel_size,
            dilation=dilation,
            groups=channels,
            use_bias=True,
            **dtypes,
        )
        self.pointwise = PointwiseConv(channels, channels, **dtypes) if pointwise else _identity
        hidden = channels // reduction
        self.squeeze = _identity if reduction == 1 else Linear(channels, hidden, **dtypes)
        self.excite = Linear(hidden, channels, **dtypes)
        self.channels = channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.channels, self.dtype)
        channels = jax.nn.sigmoid(self.excite(self.squeeze(global_average(x))))
        return self.pointwise(self.context(x)) * channels[:, None, None]


class DynamicLayer(Protocol):
    """Makes a dynamic filter whose `spatial_branch` generates a filter per pixel: `Involution`, `DDF`."""

    def __call__(
        self, in_channels: int, /, *, stride: int, dtype: Any, param_dtype: Any, rngs: nnx.Rngs
    ) -> nnx.Module: ...


class Bivolution(nnx.Module):
    r"""A dynamic and a static branch: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C].

    .. math:: y = f(x) * x + g(x)

    f is the kernel generation of a dynamic filter after SAKG (`SpatialAugmentation`), g a grouped convolution with a
    bias. On `Involution` this is the paper's (dc), on `DDF` its (dc-ca).

    Args:
        in_channels: C.
        stride: of both branches.
        dilation: of both branches.
        dynamic: factory of the dynamic filter.
        static_kernel_size: of g (None: no static branch).
        static_groups: number of groups of g; default: C / `static_group_channels`.
        static_group_channels: channels of each group of g where `static_groups` is not given.
        context_kernel_size: Δ (None: no SAKG, the filter is generated as in `dynamic`).
        context_dilation: `dilation` of `SpatialAugmentation`.
        context_reduction: `reduction` of `SpatialAugmentation`.
        context_pointwise: `pointwise` of `SpatialAugmentation`.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the groups do not divide C.

    Reference: Hu et al., "Bi-volution", 2022, Section 3.2.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: Bivolution(32, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 15, 20, 32))).shape
    (2, 8, 10, 32)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        dynamic: DynamicLayer = Involution,
        static_kernel_size: int | None = 3,
        static_groups: int | None = None,
        static_group_channels: int = 32,
        context_kernel_size: int | None = 3,
        context_dilation: int = 1,
        context_reduction: int = 1,
        context_pointwise: bool = False,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        dilated = {} if dilation == 1 else {"dilation": dilation}  # `dynamic` may have one of its own
        self.dynamic: Any = dynamic(in_channels, stride=stride, **dilated, **dtypes)
        if context_kernel_size is not None:
            augmentation = SpatialAugmentation(
                in_channels,
                context_kernel_size=context_kernel_size,
                dilation=context_dilation,
                reduction=context_reduction,
                pointwise=context_pointwise,
                **dtypes,
            )
            self.dynamic.spatial_branch = nnx.Sequential(augmentation, self.dynamic.spatial_branch)
        self.static = nnx.data(None)
        if static_kernel_size is not None:
            self.static = Conv(
                in_channels,
                in_channels,
                kernel_size=static_kernel_size,
                stride=stride,
                dilation=dilation,
                groups=static_groups or max(in_channels // static_group_channels, 1),
                use_bias=True,
                **dtypes,
            )
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        y = self.dynamic(x)
        return y if self.static is None else y + self.static(x)


def _identity(x: Array) -> Array:
    return x
