"""The public operators: documentation, checks of arguments, and the choice of an implementation."""

import functools
import importlib
import logging
import math
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from pallas_kernels.ops.device import current_device
from pallas_kernels.ops.spec import Combine, FilterSpec
from pallas_kernels.ops.vjp import Implementation, apply

# Name to module, imported on first use. A new implementation is a module and a line here.
IMPLEMENTATIONS = {
    "triton": "pallas_kernels.ops.triton",
    "xla": "pallas_kernels.ops.xla",
    "reference": "pallas_kernels.ops.reference",
}

GPU_KERNELS = ("triton",)  # implementations for NVIDIA GPUs, best first
FLOATS = ("float32", "bfloat16", "float16", "float64")


def dynamic_filter(
    x: Array,
    spatial: Array | None,
    channel: Array | None,
    *,
    stride: int = 1,
    dilation: int = 1,
    combine: Combine = "mul",
    implementation: str | None = None,
) -> Array:
    r"""Filters each pixel and channel with its own filter, combined from a spatial and a channel filter.

    .. math::
        y_{b,p,c} = \sum_t (\mathrm{spatial}_{b,p,g(c),t} \circ \mathrm{channel}_{b,t,c})\;
                    x_{b,\;\mathrm{stride}\,p + \mathrm{dilation}\,(t - \mathrm{centre}),\;c}

    with :math:`\circ` × for "mul" and + for "add", zeros outside the image, and the group of a channel
    :math:`g(c) = \lfloor c G / C \rfloor`. A filter of None is the neutral one: ``channel=None`` is Involution,
    ``spatial=None`` a depthwise convolution with one filter per sample.

    Args:
      x: [B, H, W, C], any H, W and C.
      spatial: [B, Ho, Wo, G, T] with Ho = ceil(H / stride), Wo = ceil(W / stride), T = K·K taps row-major, K odd: one
        filter per output pixel, shared by the C/G channels of a group; or None.
      channel: [B, T, C]: one filter per sample and channel; or None. Not both may be None.
      stride: pixels of x between neighbouring outputs.
      dilation: pixels of x between neighbouring taps.
      combine: how the two filters make one, "mul" or "add".
      implementation: a name from `IMPLEMENTATIONS`, which runs or raises; None for the best that runs here.

    Returns:
      y [B, Ho, Wo, C] in the dtype of x.

    Precision: inputs are float32, bfloat16, float16 or float64 and may differ. Filters are combined and sums kept in
    float32 (in float64 where an input is), and each cotangent has the dtype of its input. Reverse-mode differentiable,
    once; forward mode is not supported. No atomics: the same inputs give the same bits. An infinity or NaN may also
    reach cotangents of taps and groups that do not read it.

    Sharding: arrays split over B, over C, or over both give an output split alike, without a collective. The backward
    pass sums the cotangent of `spatial` over the devices that share its channels.

    Raises:
      ValueError: the call is wrong; the message states the rule, the expected and the given value.
      NotImplementedError: the named implementation cannot run this call here; the message states the reason.

    Reference: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Eq. 2.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((1, 4, 4, 2))
    >>> mean = jnp.full((1, 4, 4, 1, 9), 1 / 9)  # every pixel: the mean of its 3×3 neighbourhood
    >>> y = dynamic_filter(x, mean, None)
    >>> y.shape, round(float(y[0, 1, 1, 0]), 4), round(float(y[0, 0, 0, 0]), 4)
    ((1, 4, 4, 2), 1.0, 0.4444)
    """
    x, spatial, channel = _as_arrays(x, spatial, channel)
    stride, dilation = _positive("stride", stride), _positive("dilation", dilation)
    taps = _check_common(x, spatial, channel, combine)
    batch, height, width, channels = x.shape
    spec = FilterSpec(math.isqrt(taps), stride=stride, dilation=dilation, combine=combine)
    rows, columns = spec.grid_size(height), spec.grid_size(width)
    if spatial is not None:
        expected = (batch, rows, columns, "G", taps)
        _check_shape("spatial", "[B, ceil(H/stride), ceil(W/stride), G, T]", expected, spatial, x, f"{stride=}")
        _check_groups(spatial, channels)
        spatial = jnp.expand_dims(spatial, 3)
    if channel is not None:
        _check_shape("channel", "[B, T, C]", (batch, taps, channels), channel, x)
        channel = jnp.expand_dims(channel, 1)
    return apply(x, spatial, channel, implementation=_choose(implementation, x, spatial, channel), spec=spec)


def dynamic_upsample(
    x: Array,
    spatial: Array | None,
    channel: Array | None,
    *,
    scale: int,
    dilation: int = 1,
    combine: Combine = "mul",
    implementation: str | None = None,
) -> Array:
    r"""Upsamples by an integer factor, with one dynamic filter for each of the S² sub-pixels of a pixel.

    .. math::
        y_{b,\;S p + (i, j),\;c} = \sum_t (\mathrm{spatial}_{b,p,s,g(c),t} \circ \mathrm{channel}_{b,s,t,c})\;
                                 x_{b,\;p + \mathrm{dilation}\,(t - \mathrm{centre}),\;c}, \qquad s = i S + j

    The order of sub-pixels is that of torch's ``pixel_shuffle``. With ``channel=None`` this is CARAFE's reassembly.

    Args:
      x: [B, H, W, C].
      spatial: [B, H, W, S², G, T], T = K·K taps row-major, K odd; or None.
      channel: [B, S², T, C]; or None. Not both may be None.
      scale: S ≥ 1.
      dilation, combine, implementation: as for `dynamic_filter`, and so are precision, sharding and errors.

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
    scale, dilation = _positive("scale", scale), _positive("dilation", dilation)
    taps = _check_common(x, spatial, channel, combine)
    batch, height, width, channels = x.shape
    if spatial is not None:
        expected = (batch, height, width, scale**2, "G", taps)
        _check_shape("spatial", "[B, H, W, S², G, T]", expected, spatial, x, f"{scale=}")
        _check_groups(spatial, channels)
    if channel is not None:
        _check_shape("channel", "[B, S², T, C]", (batch, scale**2, taps, channels), channel, x, f"{scale=}")
    spec = FilterSpec(math.isqrt(taps), scale=scale, dilation=dilation, combine=combine)
    return apply(x, spatial, channel, implementation=_choose(implementation, x, spatial, channel), spec=spec)


def _choose(name: str | None, *inputs: Array | None) -> Implementation:
    if name is None:
        reasons = {kernels: _why_not(kernels, inputs) for kernels in GPU_KERNELS}
        name = next((kernels for kernels, reason in reasons.items() if reason is None), "xla")
        if name == "xla" and current_device(*inputs).platform == "gpu":
            _log_once(f"dynamic_filter runs as XLA on this GPU: {' '.join(filter(None, reasons.values()))}")
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"`implementation` must be None or one of {sorted(IMPLEMENTATIONS)}, got {name!r}.")
    if reason := _why_not(name, inputs):
        raise NotImplementedError(f"{reason} Use None.")
    module: Any = importlib.import_module(IMPLEMENTATIONS[name])  # it follows the protocol
    return module


def _why_not(name: str, inputs: Sequence[Array | None]) -> str | None:
    """Why the implementation cannot run this call here, or None where it can."""
    if name not in GPU_KERNELS:
        return None
    device = current_device(*inputs)
    if not device.runs_triton:
        capability = f" of compute capability {device.capability}" if device.capability else ""
        return f"implementation={name!r} runs on NVIDIA GPUs from Ampere on, here is: {device.kind}{capability}."
    if any(array is not None and array.dtype == jnp.float64 for array in inputs):
        return f"implementation={name!r} has no float64."
    return None


@functools.cache
def _log_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)


def _as_arrays(
    x: ArrayLike, spatial: ArrayLike | None, channel: ArrayLike | None
) -> tuple[Array, Array | None, Array | None]:
    def as_array(name: str, value: ArrayLike) -> Array:
        array = jnp.asarray(value)
        if array.dtype.name not in FLOATS:
            raise ValueError(f"`{name}` must have a dtype of {', '.join(FLOATS)}, got {array.dtype}. Cast it first.")
        return array

    if x is None:
        raise ValueError("`x` must be an array [B, H, W, C], got None.")
    return (
        as_array("x", x),
        None if spatial is None else as_array("spatial", spatial),
        None if channel is None else as_array("channel", channel),
    )


def _positive(name: str, value: SupportsIndex) -> int:
    """The value as Python's int: NumPy has integers of its own."""
    try:
        number = 0 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"`{name}` must be an int ≥ 1, got {value!r}.")
    return number


def _check_common(x: Array, spatial: Array | None, channel: Array | None, combine: str) -> int:
    """Checks the arguments that both operators share, and returns T."""
    if combine not in ("mul", "add"):
        raise ValueError(f"`combine` must be 'mul' or 'add', got {combine!r}.")
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"`x` must be [B, H, W, C] with no empty axis, got {x.shape}.")
    if spatial is not None and spatial.ndim >= 1:
        taps, source = spatial.shape[-1], f"the last axis of spatial {spatial.shape}"
    elif channel is not None and channel.ndim >= 2:
        taps, source = channel.shape[-2], f"the last axis but one of channel {channel.shape}"
    elif channel is None:
        raise ValueError("`spatial` and `channel` must not both be None: there would be no filter.")
    else:
        raise ValueError(f"`channel` must end in [T, C], got {channel.shape}.")
    kernel_size = math.isqrt(taps)
    if kernel_size**2 != taps or kernel_size % 2 == 0:
        raise ValueError(f"T must be the square of an odd kernel size (1, 9, 25, 49, …), got {taps} from {source}.")
    return taps


def _check_shape(name: str, rule: str, expected: tuple, array: Array, x: Array, *context: str) -> None:
    fits = array.ndim == len(expected)
    fits = fits and all(want in ("G", have) for want, have in zip(expected, array.shape, strict=True))
    if not fits:
        wanted = "(" + ", ".join(map(str, expected)) + ")"
        seen = ", ".join([f"x.shape={x.shape}", *context])
        raise ValueError(f"`{name}` must be {rule} = {wanted}, got {array.shape} for {seen}.")


def _check_groups(spatial: Array, channels: int) -> None:
    groups = spatial.shape[-2]
    if groups == 0 or channels % groups:
        raise ValueError(f"The groups of `spatial` must divide the channels of `x`: C={channels}, got G={groups}.")
