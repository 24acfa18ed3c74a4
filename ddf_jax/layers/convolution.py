"""Convolutions with torch's padding and initialisation.

Each computes in `dtype`, by default that of its input (float32 for integers), whatever the dtype of its parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import check_channels, check_feature_map, check_odd, convolution, pixel_product, strided
from ddf_jax.layers.initializers import Initializer, normal_fan_out, uniform_bias, uniform_fan_in
from ddf_jax.layers.inputs import promote_dtype
from ddf_jax.layers.options import python_numbers


class Conv(nnx.Conv):
    """K×K convolution padded by dilation·(K // 2): [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), out_channels].

    `groups` splits the channels; as many groups as channels make it depthwise.
    (Flax's "SAME" pads a stride of 2 on one side only, which shifts the result by a pixel against torch.)

    Raises:
        UserError: the kernel size is even, or the groups do not divide both numbers of channels.
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
        groups: int = 1,
        use_bias: bool = False,
        kernel_init: Initializer = normal_fan_out,
        bias_init: Initializer | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if in_channels % groups or out_channels % groups:
            raise UserError(f"`groups` must divide both {in_channels=} and {out_channels=}, got {groups}.")
        check_odd(kernel_size=kernel_size)
        border = dilation * (kernel_size // 2)
        super().__init__(
            in_channels,
            out_channels,
            (kernel_size, kernel_size),
            stride,
            padding=((border, border), (border, border)),
            kernel_dilation=dilation,
            feature_group_count=groups,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=bias_init or uniform_bias(in_channels // groups * kernel_size**2),
            dtype=dtype,
            param_dtype=param_dtype,
            promote_dtype=promote_dtype,
            conv_general_dilated=convolution,
            rngs=rngs,
        )

    def __call__(self, inputs: Array, out_sharding: Any = None) -> Array:
        check_feature_map(inputs, self.in_features)
        return super().__call__(inputs, out_sharding)


class PointwiseConv(nnx.Linear):
    """1×1 convolution: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), out_channels].

    A matrix product over the channels, about twice as fast on a CPU as a convolution of the same shape.
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        use_bias: bool = False,
        kernel_init: Initializer = normal_fan_out,
        bias_init: Initializer | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_channels,
            out_channels,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=bias_init or uniform_bias(in_channels),
            dtype=dtype,
            param_dtype=param_dtype,
            promote_dtype=promote_dtype,
            dot_general=pixel_product,
            rngs=rngs,
        )
        self.stride = stride

    def __call__(self, inputs: Array, out_sharding: Any = None) -> Array:
        check_feature_map(inputs, self.in_features)
        if self.stride > 1:
            # In memory: XLA of JAX 0.10 and 0.11 aborts where it fuses a strided slice into a split matrix product.
            inputs = jax.lax.optimization_barrier(strided(inputs, self.stride))
        return super().__call__(inputs, out_sharding)


class Linear(nnx.Linear):
    """Fully connected layer, [..., C] to [..., out_channels], with torch's initialisation."""

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        use_bias: bool = True,
        kernel_init: Initializer = uniform_fan_in,
        bias_init: Initializer | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_channels,
            out_channels,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=bias_init or uniform_bias(in_channels),
            dtype=dtype,
            param_dtype=param_dtype,
            promote_dtype=promote_dtype,
            rngs=rngs,
        )

    def __call__(self, inputs: Array, out_sharding: Any = None) -> Array:
        check_channels(inputs, self.in_features)
        return super().__call__(inputs, out_sharding)
