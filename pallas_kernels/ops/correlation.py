"""The local correlation: the member of the operator's family whose result is a spatial filter."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from pallas_kernels.ops import checks
from pallas_kernels.ops.api import padded, short
from pallas_kernels.ops.checks import PaddingMode
from pallas_kernels.ops.choice import preference
from pallas_kernels.ops.primitive import apply
from pallas_kernels.ops.spec import FilterSpec, Padding, Pair


def local_correlation(
    query: Array,
    key: Array,
    *,
    kernel_size: int | Pair,
    stride: int | Pair = 1,
    dilation: int | Pair = 1,
    groups: int = 1,
    padding: str | Padding = "SAME",
    padding_mode: PaddingMode = "zeros",
    scale: float = 1.0,
    implementation: str | Sequence[str] | None = None,
) -> Array:
    r"""Scalar products of each query with the keys around it, group by group of the channels.

    .. math::
        \mathrm{out}_{b,p,g,t} = \mathrm{scale} \sum_{c \in g} \mathrm{query}_{b,p,c}\;
                                 \mathrm{key}_{b,\;\mathrm{stride}\,p + \mathrm{dilation}\,(t - \mathrm{centre}),\;c}

    Alone it is the cost volume of optical flow (scale = 1/C); with a softmax over the taps and `dynamic_filter` it is
    attention in a neighbourhood, see `neighborhood_attention`.

    Args:
      query: [B, Ho, Wo, C].
      key: [B, H, W, C], where "SAME" padding makes Ho = ceil(H / stride) and Wo = ceil(W / stride).
      kernel_size: K or (Kh, Kw); even sizes are allowed.
      groups: G, which divides C; the heads of attention.
      scale: multiplies the sums.
      stride, dilation, padding, padding_mode, implementation: as for `dynamic_filter`, and so are leading axes,
        precision, derivatives and errors. Outside the image the key is zero.

    Returns:
      [B, Ho, Wo, G, T] in the dtype of the query, T = Kh·Kw taps row-major: the shape of a spatial filter.

    Sharding: as for `dynamic_filter`. Where several devices hold channels of one group, their sums are added.

    References: Dosovitskiy et al., "FlowNet: Learning Optical Flow with Convolutional Networks", ICCV 2015;
    Ramachandran et al., "Stand-Alone Self-Attention in Vision Models", NeurIPS 2019.

    >>> import jax.numpy as jnp
    >>> image = jnp.arange(3.0).reshape(1, 1, 3, 1)
    >>> local_correlation(image, image, kernel_size=(1, 3))[0, 0, :, 0].tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [2.0, 4.0, 0.0]]
    """
    return correlate(
        query,
        key,
        kernel_size=kernel_size,
        stride=stride,
        dilation=dilation,
        groups=groups,
        padding=padding,
        padding_mode=padding_mode,
        scale=scale,
        implementation=implementation,
    )


def correlate(
    query: Array,
    key: Array,
    *,
    kernel_size: int | Pair,
    stride: int | Pair = 1,
    dilation: int | Pair = 1,
    groups: int = 1,
    padding: str | Padding = "SAME",
    padding_mode: PaddingMode = "zeros",
    scale: float = 1.0,
    dtype: DTypeLike | None = None,
    implementation: str | Sequence[str] | None = None,
) -> Array:
    """`local_correlation` in a dtype, by default that of the query."""
    query, key = checks.as_image("query", query, "[B, Ho, Wo, C]"), checks.as_image("key", key)
    dtype = jnp.dtype(dtype or query.dtype)
    size = checks.positive_pair("kernel_size", kernel_size)
    stride, dilation = checks.positive_pair("stride", stride), checks.positive_pair("dilation", dilation)
    groups, chosen = checks.positive("groups", groups), preference(implementation)
    given, (key, border) = key, padded(key, checks.as_padding(padding, size, dilation), padding_mode)
    spec = FilterSpec(size, stride, 1, dilation, padding=border, factor=checks.number("scale", scale))
    *leading, height, width, channels = key.shape
    grid = spec.grid((height, width))
    checks.check_fits(given.shape[-3:-1], grid, size, dilation, "key")
    expected = (*leading, *grid, channels)
    checks.check_shape("query", "[B, Ho, Wo, C]", expected, query, given, f"stride={short(stride)}", of="key")
    if channels % groups:
        raise ValueError(f"`groups` must divide the channels of `key`: C={channels}, got {groups}.")
    if 0 in leading:
        return jnp.zeros((*leading, *grid, groups, spec.taps), dtype)
    operands: dict[Any, Array] = {"x": key, "y": query}
    [found] = apply(
        {"spatial": dtype},
        operands,
        spec=spec,
        size=(height, width),
        groups=groups,
        preference=chosen,
        mapped=key.ndim - 4,
    ).values()
    return jnp.squeeze(found, -3)
