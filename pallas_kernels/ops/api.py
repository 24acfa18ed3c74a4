"""The public operators: their documentation and what they make of their arguments."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from pallas_kernels.ops import checks
from pallas_kernels.ops.checks import PaddingMode
from pallas_kernels.ops.choice import Preference, preference
from pallas_kernels.ops.padding import pad_image
from pallas_kernels.ops.primitive import apply
from pallas_kernels.ops.spec import Combine, FilterSpec, Normalize, Padding, Pair


def dynamic_filter(
    x: Array,
    spatial: Array | None,
    channel: Array | None,
    *,
    kernel_size: int | Pair | None = None,
    stride: int | Pair = 1,
    dilation: int | Pair = 1,
    combine: Combine = "mul",
    padding: str | Padding = "SAME",
    padding_mode: PaddingMode = "zeros",
    normalize: Normalize | None = None,
    gain: float = 1.0,
    implementation: str | Sequence[str] | None = None,
) -> Array:
    r"""Filters each pixel and channel with its own filter, combined from a spatial and a channel filter.

    .. math::
        y_{b,p,c} = \sum_t (\mathrm{spatial}_{b,p,g(c),t} \circ \mathrm{channel}_{b,t,c})\;
                    x_{b,\;\mathrm{stride}\,p + \mathrm{dilation}\,(t - \mathrm{centre}),\;c}

    with :math:`\circ` × for "mul" and + for "add", zeros outside the image, and the group of a channel
    :math:`g(c) = \lfloor c G / C \rfloor`. A filter of None is the neutral one: ``channel=None`` is Involution,
    ``spatial=None`` a depthwise convolution with one filter per sample.

    Args:
      x: [B, H, W, C], any H, W and C; B may be 0. Further leading axes are a loop, for all arrays.
      spatial: [B, Ho, Wo, G, T], T = Kh·Kw taps row-major: one filter per output pixel, shared by the C/G channels of a
        group; or None. With the padding "SAME", Ho = ceil(H / stride) and Wo = ceil(W / stride).
      channel: [B, T, C]: one filter per sample and channel; or None. Not both may be None.
      kernel_size: K or (Kh, Kw); by default K = √T, which must be odd.
      stride: pixels of x between neighbouring outputs. Here and below, an int or a pair (height, width).
      dilation: pixels of x between neighbouring taps.
      combine: how the two filters make one, "mul" or "add".
      padding: "SAME": dilation·(K - 1) pixels along each axis, half of them on each side (of an odd number the smaller
        half at the top and left), so that an odd kernel is centred; "VALID": none; or ((top, bottom), (left, right)).
      padding_mode: what the padding is: "zeros", "reflect" (the mirror image, without the outermost pixel) or
        "replicate" (the outermost pixel). The last two make a padded copy of x.
      normalize: the spatial filter is the "softmax" of the given one over its taps, or its "filter_norm", which has
        mean 0 and deviation gain/√T: gain/√T · (s - μ)/(δ + 10⁻¹⁰), with the unbiased deviation δ. The normalised
        filter is made in registers.
      gain: of "filter_norm".
      implementation: a name from `IMPLEMENTATIONS`, or several, best first: the first that can run where the program is
        lowered. None for the best.

    Returns:
      y [B, Ho, Wo, C] in the dtype of x.

    Precision: inputs are float32, bfloat16, float16 or float64 and may differ. Filters are combined and sums kept in
    float32 (in float64 where an input is), and each cotangent has the dtype of its input. No atomics: the same inputs
    give the same bits. An infinity or NaN may also reach cotangents of taps and groups that do not read it.

    Derivatives: of any order, in reverse and forward mode, on the same kernels.

    Sharding: arrays split over B, over C, or over both give an output split alike, without a collective. The backward
    pass sums the cotangent of `spatial` over the devices that share its channels. Arrays split over H, where a device
    holds `stride` rows of x for each of Ho, exchange the rows that their taps share (`halo_exchange`), forward and
    backward, and the backward pass sums the cotangent of `channel`.

    Raises:
      ValueError: the call is wrong; the message states the rule, the expected and the given value.
      NotImplementedError: none of the named implementations can run where the program is lowered; the message states
        the reasons.

    Reference: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Eq. 2.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((1, 4, 4, 2))
    >>> mean = jnp.full((1, 4, 4, 1, 9), 1 / 9)  # every pixel: the mean of its 3×3 neighbourhood
    >>> y = dynamic_filter(x, mean, None)
    >>> y.shape, round(float(y[0, 1, 1, 0]), 4), round(float(y[0, 0, 0, 0]), 4)
    ((1, 4, 4, 2), 1.0, 0.4444)
    """
    x, spatial, channel = _as_arrays(x, spatial, channel)
    stride, dilation = checks.positive_pair("stride", stride), checks.positive_pair("dilation", dilation)
    checks.check_combine(combine)
    size = checks.kernel_size_of(kernel_size, spatial, channel)
    checks.check_normalize(normalize, spatial, size[0] * size[1])
    gain = checks.number("gain", gain) if normalize else 1.0
    border = checks.as_padding(padding, size, dilation)
    given, (x, border) = x, padded(x, border, padding_mode)
    spec = FilterSpec(size, stride, 1, dilation, combine, border, normalize=normalize, gain=gain)
    *leading, height, width, channels = x.shape
    grid = spec.grid((height, width))
    checks.check_fits(given.shape[-3:-1], grid, size, dilation)
    if spatial is not None:
        rule = "[B, ceil(H/stride), ceil(W/stride), G, T]" if checks.is_named(padding, "SAME") else "[B, Ho, Wo, G, T]"
        checks.check_shape(
            "spatial", rule, (*leading, *grid, "G", spec.taps), spatial, given, f"stride={short(stride)}"
        )
        checks.check_groups(spatial, channels)
        spatial = jnp.expand_dims(spatial, -3)
    if channel is not None:
        checks.check_shape("channel", "[B, T, C]", (*leading, spec.taps, channels), channel, given)
        channel = jnp.expand_dims(channel, -3)
    return run(x, spatial, channel, spec=spec, implementation=preference(implementation))


def dynamic_upsample(
    x: Array,
    spatial: Array | None,
    channel: Array | None,
    *,
    scale: int,
    kernel_size: int | Pair | None = None,
    dilation: int | Pair = 1,
    combine: Combine = "mul",
    padding_mode: PaddingMode = "zeros",
    normalize: Normalize | None = None,
    gain: float = 1.0,
    implementation: str | Sequence[str] | None = None,
) -> Array:
    r"""Upsamples by an integer factor, with one dynamic filter for each of the S² sub-pixels of a pixel.

    .. math::
        y_{b,\;S p + (i, j),\;c} = \sum_t (\mathrm{spatial}_{b,p,s,g(c),t} \circ \mathrm{channel}_{b,s,t,c})\;
                                 x_{b,\;p + \mathrm{dilation}\,(t - \mathrm{centre}),\;c}, \qquad s = i S + j

    The order of sub-pixels is that of torch's ``pixel_shuffle``. With ``channel=None`` this is CARAFE's reassembly.

    Args:
      x: [B, H, W, C].
      spatial: [B, H, W, S², G, T], T = Kh·Kw taps row-major; or None.
      channel: [B, S², T, C]; or None. Not both may be None.
      scale: S ≥ 1.
      kernel_size, dilation, combine, padding_mode, normalize, gain, implementation: as for `dynamic_filter`, and so are
        leading axes, precision, derivatives, sharding and errors. The padding is "SAME".

    Returns:
      y [B, S·H, S·W, C] in the dtype of x.

    References: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Section 6 (DDF-Up); Wang et al., "CARAFE:
    Content-Aware ReAssembly of FEatures", ICCV 2019.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> nearest = jnp.zeros((1, 2, 2, 4, 1, 9)).at[..., 4].set(1)  # every sub-pixel takes the centre
    >>> dynamic_upsample(x, nearest, None, scale=2)[0, :, :, 0].tolist()
    [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0], [2.0, 2.0, 3.0, 3.0]]
    """
    x, spatial, channel = _as_arrays(x, spatial, channel)
    scale, dilation = checks.positive("scale", scale), checks.positive_pair("dilation", dilation)
    checks.check_combine(combine)
    size = checks.kernel_size_of(kernel_size, spatial, channel)
    taps = size[0] * size[1]
    checks.check_normalize(normalize, spatial, taps)
    gain = checks.number("gain", gain) if normalize else 1.0
    *leading, height, width, channels = x.shape
    if spatial is not None:
        expected = (*leading, height, width, scale**2, "G", taps)
        checks.check_shape("spatial", "[B, H, W, S², G, T]", expected, spatial, x, f"{scale=}")
        checks.check_groups(spatial, channels)
    if channel is not None:
        expected = (*leading, scale**2, taps, channels)
        checks.check_shape("channel", "[B, S², T, C]", expected, channel, x, f"{scale=}")
    x, border = padded(x, checks.as_padding("SAME", size, dilation), padding_mode)
    spec = FilterSpec(size, 1, scale, dilation, combine, border, normalize=normalize, gain=gain)
    return run(x, spatial, channel, spec=spec, implementation=preference(implementation))


def run(
    x: Array, spatial: Array | None, channel: Array | None, *, spec: FilterSpec, implementation: Preference = None
) -> Array:
    """The operator on the shapes of `FilterSpec`, with any leading axes, without checks."""
    *leading, height, width, channels = x.shape
    if 0 in leading:
        return jnp.zeros((*leading, *spec.output_size((height, width)), channels), x.dtype)
    arrays = {"x": x, "spatial": spatial, "channel": channel}
    operands: Any = {name: array for name, array in arrays.items() if array is not None}
    [y] = apply(
        {"y": x.dtype},
        operands,
        spec=spec,
        size=(height, width),
        groups=1 if spatial is None else spatial.shape[-2],
        preference=implementation,
        mapped=x.ndim - 4,
    ).values()
    return y


def _as_arrays(x: Any, spatial: Any, channel: Any) -> tuple[Array, Array | None, Array | None]:
    return (
        checks.as_image("x", x),
        None if spatial is None else checks.as_array("spatial", spatial),
        None if channel is None else checks.as_array("channel", channel),
    )


def padded(x: Array, padding: Padding, mode: PaddingMode) -> tuple[Array, Padding]:
    """x, with its padding where that is not zeros, and the zeros that remain around it."""
    checks.check_padding_mode(mode, padding, x.shape[-3:-1])
    return (x, padding) if mode == "zeros" else (pad_image(x, padding, mode), ((0, 0), (0, 0)))


def short(pair: Pair) -> Any:
    return pair[0] if pair[0] == pair[1] else pair
