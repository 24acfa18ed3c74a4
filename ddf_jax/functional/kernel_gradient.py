"""Convolution as each platform computes it fastest."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from ddf_jax.functional.few_channels import can_be_folded, folded_convolution
from ddf_jax.functional.height import on_rows
from ddf_jax.functional.views import strided
from pallas_kernels import accumulator_dtype

FEW_CHANNELS = 3
"""Of so few, views for all taps of a row are multiplied at once: twice as fast for an image, slower for more."""


FEW_PER_GROUP, NARROW = 4, 128
"""Channels of a group, and of all groups, up to which the block-diagonal kernel of one group is faster on a CPU: XLA's
grouped convolution takes 50 ns for an output of a group of up to 4 channels, as long as a product of 230 channels."""


def convolution(
    x: Array, kernel: Array, strides: tuple[int, int], padding: tuple[tuple[int, int], ...], **options: Any
) -> Array:
    """`jax.lax.conv_general_dilated` of x [B, H, W, C] with a kernel [Kh, Kw, C / groups, D], as Flax's layers call it.

    On a CPU the derivative with respect to the kernel is a sum of matrix products with shifted views of x, for a square
    kernel with the same stride and dilation along both axes; groups are blocks on the diagonal of a matrix. XLA's own
    is a convolution with a kernel as large as the image, and slower, with 32 groups 50 times. A depthwise convolution
    and its derivatives are sums of products with such views there, ten times as fast as XLA's. Narrow groups are one
    with zeros there, so that an infinity or NaN reaches the outputs of all groups. On a GPU the convolution
    of an image with a stride of 2, and its derivatives, are those of `folded_convolution`. Within `height_split` each
    device convolves its rows.
    """

    def of_rows(x: Array, kernel: Array, rows: tuple[int, int]) -> Array:
        return _convolution(x, kernel, strides, (rows, *padding[1:]), **options)

    span = options["rhs_dilation"][0] * (kernel.shape[0] - 1)
    return on_rows(of_rows, x, kernel, padding=padding[0], span=span, stride=strides[0])


def _convolution(
    x: Array, kernel: Array, strides: tuple[int, int], padding: tuple[tuple[int, int], ...], **options: Any
) -> Array:
    """`convolution` of whole images, or of those of one device."""
    groups: int = options["feature_group_count"]
    is_depthwise = groups == x.shape[3] == kernel.shape[3]

    def direct(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    @jax.checkpoint  # the folded image is not kept for the backward pass
    def folded(x: Array, kernel: Array) -> Array:
        return folded_convolution(x, kernel, padding)

    def depthwise(x: Array, kernel: Array) -> Array:
        return _depthwise(x, kernel, strides, padding, options["rhs_dilation"])

    def as_one_group(x: Array, kernel: Array) -> Array:
        one: dict[str, Any] = options | {"feature_group_count": 1}
        return lax.conv_general_dilated(x, _block_diagonal(kernel, groups), strides, padding, **one)

    def plain(x: Array, kernel: Array) -> Array:
        if is_depthwise:
            return lax.platform_dependent(x, kernel, cpu=depthwise, default=direct)
        if groups > 1 and kernel.shape[2] <= FEW_PER_GROUP and x.shape[3] <= NARROW:
            return lax.platform_dependent(x, kernel, cpu=as_one_group, default=direct)
        if can_be_folded(x, kernel, strides, options["rhs_dilation"], groups):
            return lax.platform_dependent(x, kernel, cuda=folded, default=direct)
        return direct(x, kernel)

    def product(x: Array, kernel: Array) -> Array:
        kernel = _block_diagonal(kernel, groups)
        size, (dilation, _) = kernel.shape[0], options["rhs_dilation"]
        together = 1 if x.shape[3] > FEW_CHANNELS else size  # taps of a row in one product
        padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        height, width = (side - dilation * (size - 1) for side in padded.shape[1:3])

        @jax.checkpoint  # the views are made for the product alone, not kept since the forward pass
        def product_of_taps(number: Array, kernel: Array) -> Array:
            row, column = jnp.divmod(number, size // together)
            part = lax.dynamic_slice_in_dim(padded, dilation * row, height, axis=1)
            part = lax.dynamic_slice_in_dim(part, dilation * column, width + dilation * (together - 1), axis=2)
            starts = [(0, dilation * tap) for tap in range(together)]
            views = [strided(part, strides[0], start=start, size=(height, width)) for start in starts]
            patches = jnp.concatenate(views, axis=-1)
            y = patches.reshape(-1, patches.shape[3]) @ kernel
            return y.reshape(*patches.shape[:3], -1)

        taps = kernel.reshape(-1, together * x.shape[3], kernel.shape[3])
        none = strided(padded[..., :0], strides[0], start=(0, 0), size=(height, width))
        zeros = none @ taps[0, :0]  # of no channels: it has the type of a product on any mesh
        numbers = jnp.arange(taps.shape[0])
        return lax.scan(lambda y, some: (y + product_of_taps(*some), None), zeros, (numbers, taps))[0]

    square = all(along_h == along_w for along_h, along_w in (kernel.shape[:2], strides, options["rhs_dilation"]))
    if is_depthwise or not square:
        return plain(x, kernel)
    differentiable = jax.custom_jvp(plain)

    def derivative(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
        (x, kernel), (dx, dkernel) = primals, tangents
        dy = []
        if not isinstance(dx, SymbolicZero):
            dy.append(plain(dx, kernel))
        if not isinstance(dkernel, SymbolicZero):
            dy.append(lax.platform_dependent(x, dkernel, cpu=product, default=plain))
        return differentiable(x, kernel), sum(dy[1:], dy[0])

    differentiable.defjvp(derivative, symbolic_zeros=True)
    return differentiable(x, kernel)


def _block_diagonal(kernel: Array, groups: int) -> Array:
    """The kernel [Kh, Kw, C, D] of one group with the same result as [Kh, Kw, C / groups, D]."""
    if groups == 1:
        return kernel
    of_input, of_output = (
        jnp.repeat(jnp.arange(groups), size) for size in (kernel.shape[2], kernel.shape[3] // groups)
    )
    return jnp.where(of_input[:, None] == of_output[None], jnp.tile(kernel, (1, 1, groups, 1)), 0)


def _depthwise(
    x: Array, kernel: Array, strides: tuple[int, int], padding: tuple[tuple[int, int], ...], dilation: tuple[int, int]
) -> Array:
    """The convolution with a kernel [Kh, Kw, 1, C] as a sum over its taps."""
    wide, padded = accumulator_dtype(x), jnp.pad(x, ((0, 0), *padding, (0, 0)))
    ends = [
        stride * ((side - d * (size - 1) - 1) // stride) + 1
        for side, size, stride, d in zip(padded.shape[1:3], kernel.shape[:2], strides, dilation, strict=True)
    ]
    y = None
    for tap in itertools.product(*map(range, kernel.shape[:2])):
        first = [d * place for d, place in zip(dilation, tap, strict=True)]
        last = [start + end for start, end in zip(first, ends, strict=True)]
        view = lax.slice(padded, (0, *first, 0), (x.shape[0], *last, x.shape[3]), (1, *strides, 1))
        product = view.astype(wide) * kernel[tap].astype(wide)[None, None]
        y = product if y is None else y + product
    assert y is not None
    return y.astype(x.dtype)
