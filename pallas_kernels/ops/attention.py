"""Attention in a neighbourhood: the public function and its checks."""

from collections.abc import Sequence
from typing import get_args

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from pallas_kernels.ops import checks
from pallas_kernels.ops.choice import preference
from pallas_kernels.ops.fused_attention import attend
from pallas_kernels.ops.neighborhood import AttentionSpec, Border
from pallas_kernels.ops.spec import Pair


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
        softmax. "mask": they have no share. "shift": the window is shifted to lie inside, as in NATTEN; without the
        kernel it is computed as a masked window of (2K - 1)², four times the work.
      bias: [G, T], added to the logits; with "shift" [G, (2Kh - 1)·(2Kw - 1)], by the offset of the key; or None.
      implementation: as for `dynamic_filter`, and so are leading axes, derivatives and sharding.

    Returns:
      y [B, H, W, C] in the dtype of v. The logits are in float32 (float64 where an input is).

    Memory: the "triton" forward pass is one kernel, which keeps the logits in registers. Elsewhere, and in all
    derivatives, it is a `local_correlation` and a `dynamic_filter`, between which the logits are in memory; the
    backward pass computes them again.

    Raises:
      ValueError: the call is wrong; the message states the rule, the expected and the given value.
      NotImplementedError: as for `dynamic_filter`.

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
    factor: float = (channels // num_heads) ** -0.5 if scale is None else checks.number("scale", scale)
    spec = AttentionSpec(size, dilation, factor, border)
    *mapped, batch, _, _, _ = q.shape
    if bias is not None:
        table = _as_bias(bias, (num_heads, spec.bias_taps))
        bias = jnp.broadcast_to(table, (*mapped, *table.shape))
    chosen = preference(implementation)
    if 0 in (*mapped, batch):
        return jnp.zeros_like(v)
    return attend(v, q, k, bias, spec=spec, num_heads=num_heads, preference=chosen)


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
