"""Attention in a neighbourhood, from the local correlation and the dynamic filter."""

from collections.abc import Sequence
from typing import Literal, get_args

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from pallas_kernels.ops import checks
from pallas_kernels.ops.api import dynamic_filter
from pallas_kernels.ops.correlation import correlate
from pallas_kernels.ops.spec import Pair, accumulator_dtype

Border = Literal["zero", "mask", "shift"]


def neighborhood_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    kernel_size: int | Pair,
    num_heads: int,
    dilation: int | Pair = 1,
    scale: float | None = None,
    border: Border = "zero",
    bias: Array | None = None,
    implementation: str | Sequence[str] | None = None,
) -> Array:
    r"""Attention of each pixel to the Kh×Kw pixels around it, head by head of the channels.

    .. math::
        y_{b,p,c} = \sum_t \operatorname{softmax}_t\Big(\mathrm{scale} \sum_{c' \in g(c)} q_{b,p,c'}\, k_{b,p+t,c'}
                    + \mathrm{bias}_{g(c),t}\Big)\; v_{b,p+t,c}

    Args:
      q: queries [B, H, W, C].
      k: keys [B, H, W, C].
      v: values [B, H, W, C].
      kernel_size: K or (Kh, Kw), odd.
      num_heads: G, which divides C.
      dilation: pixels between neighbours.
      scale: of the logits; by default (C/G)^(-1/2).
      border: of windows that reach beyond the image. "zero": keys and values there are zero, with their share of the
        softmax. "mask": they have no share. "shift": the window is shifted to lie inside, as in NATTEN; it is computed
        as a masked window of (2K - 1)², four times the work.
      bias: [G, T], added to the logits; with "shift" [G, (2Kh - 1)·(2Kw - 1)], by the offset of the key; or None.
      implementation: as for `dynamic_filter`, and so are leading axes, derivatives and sharding.

    Returns:
      y [B, H, W, C] in the dtype of v. The logits are in float32 (float64 where an input is).

    Raises:
      ValueError: the call is wrong; the message states the rule, the expected and the given value.

    References: Ramachandran et al., "Stand-Alone Self-Attention in Vision Models", NeurIPS 2019 ("zero"); Zhao et al.,
    "Exploring Self-attention for Image Recognition", CVPR 2020; Hassani et al., "Neighborhood Attention Transformer",
    CVPR 2023 ("shift").

    >>> import jax.numpy as jnp
    >>> q, v = jnp.zeros((1, 1, 3, 1)), jnp.arange(3.0).reshape(1, 1, 3, 1)  # equal weights
    >>> for border in ("zero", "mask", "shift"):
    ...     y = neighborhood_attention(q, q, v, kernel_size=(1, 3), num_heads=1, border=border)
    ...     print(border, [round(float(value), 2) for value in y[0, 0, :, 0]])
    zero [0.33, 1.0, 1.0]
    mask [0.5, 1.0, 1.5]
    shift [1.0, 1.0, 1.0]
    """
    q, k, v = (checks.as_image(name, array) for name, array in (("q", q), ("k", k), ("v", v)))
    for name, array in (("k", k), ("v", v)):
        if array.shape != q.shape:
            raise ValueError(f"`{name}` must have the shape of `q`, {q.shape}, got {array.shape}.")
    size, dilation = checks.positive_pair("kernel_size", kernel_size), checks.positive_pair("dilation", dilation)
    if any(side % 2 == 0 for side in size):
        raise ValueError(f"`kernel_size` must be odd, got {kernel_size!r}.")
    num_heads = checks.positive("num_heads", num_heads)
    *_, height, width, channels = q.shape
    if channels % num_heads:
        raise ValueError(f"`num_heads` must divide the channels: C={channels}, got {num_heads}.")
    if border not in get_args(Border):
        raise ValueError(f"`border` must be one of {get_args(Border)}, got {border!r}.")
    if border == "shift":
        _check_shift((height, width), size, dilation)
    window = tuple(2 * side - 1 for side in size) if border == "shift" else size
    factor = (channels // num_heads) ** -0.5 if scale is None else scale
    wide = accumulator_dtype(q, k, v)
    options = {"kernel_size": window, "dilation": dilation, "implementation": implementation}
    logits = correlate(q, k, groups=num_heads, scale=factor, dtype=wide, **options)
    leading = (1,) * (logits.ndim - 2)
    if bias is not None:
        bias = _as_bias(bias, (num_heads, window[0] * window[1]))
        logits = logits + bias.reshape(*leading, *bias.shape).astype(wide)
    if border != "zero":
        axes = zip((height, width), size, dilation, strict=True)
        rows, columns = (_inside(length, side, step, border) for length, side, step in axes)
        inside = rows[:, None, :, None] & columns[None, :, None, :]  # [H, W, Kh, Kw]
        logits = jnp.where(inside.reshape(*leading[2:], height, width, 1, -1), logits, -jnp.inf)
    return dynamic_filter(v, logits, None, normalize="softmax", **options)


def _inside(length: int, side: int, step: int, border: Border) -> Array:
    """Whether each key of each position's window takes part, along one axis: [length, window]."""
    position = jnp.arange(length)[:, None]
    if border == "mask":
        key = position + step * jnp.arange(-(side // 2), side // 2 + 1)[None]
        return (key >= 0) & (key < length)
    # Among the pixels a dilation apart, which are numbered here, the window starts inside.
    number, count = position // step, (length - 1 - position % step) // step + 1
    start = jnp.clip(number - side // 2, 0, count - side)
    key = number + jnp.arange(1 - side, side)[None]
    return (key >= start) & (key < start + side)


def _check_shift(image: tuple[int, int], size: Pair, dilation: Pair) -> None:
    for name, length, side, step in zip("HW", image, size, dilation, strict=True):
        if isinstance(length, int) and length < side * step:
            raise ValueError(
                f"border='shift' needs {name} ≥ kernel_size·dilation = {side * step}, got {name}={length}."
            )


def _as_bias(bias: ArrayLike, shape: tuple[int, int]) -> Array:
    array = checks.as_array("bias", bias)
    if array.shape != shape:
        raise ValueError(f"`bias` must be [num_heads, taps of the window] = {shape}, got {array.shape}.")
    return array
