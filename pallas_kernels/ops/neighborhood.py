"""The static options of attention in a neighbourhood, and its composition of two members of the operator's family."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax.numpy as jnp
from jax import Array

from pallas_kernels.ops.form import Name
from pallas_kernels.ops.spec import FilterSpec, Pair, accumulator_dtype

Border = Literal["zero", "mask", "shift"]

# (results with their dtypes, operands, options of the operator) -> results: a partial derivative of the form
EvaluateForm = Callable[[Mapping[Name, Any], Mapping[Name, Array], FilterSpec], Mapping[Name, Array]]


@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """The options of `neighborhood_attention`, on arrays v, q, k [B, H, W, C] and bias [G, T] or None.

    Args:
      kernel_size: (Kh, Kw), odd.
      dilation: pixels between neighbouring keys.
      scale: multiplies the scalar products.
      border: of windows that reach beyond the image.
    """

    kernel_size: Pair
    dilation: Pair
    scale: float
    border: Border

    @property
    def window(self) -> Pair:
        """The keys around a position that may take part, along both axes."""
        rows, columns = self.kernel_size
        return (2 * rows - 1, 2 * columns - 1) if self.border == "shift" else (rows, columns)

    @property
    def bias_taps(self) -> int:
        """T of the bias."""
        rows, columns = self.window
        return rows * columns


def compose(
    spec: AttentionSpec, evaluate: EvaluateForm, v: Array, q: Array, k: Array, bias: Array | None = None
) -> Array:
    """Attention as a local correlation of q and k, and a dynamic filter of v with the softmax of its result.

    Args:
      spec: the options.
      evaluate: evaluates partial derivatives of the form.
      v: values [..., B, H, W, C], and alike q and k.
      bias: [..., G, T].
    """
    wide = accumulator_dtype(q, k, v)
    correlation = FilterSpec(spec.window, dilation=spec.dilation, factor=spec.scale)
    logits = evaluate({"spatial": wide}, {"x": k, "y": q}, correlation)["spatial"]  # [..., B, H, W, 1, G, T]
    if bias is not None:
        logits = logits + jnp.expand_dims(bias, (-3, -4, -5, -6)).astype(wide)
    if spec.border != "zero":
        axes = zip(v.shape[-3:-1], spec.kernel_size, spec.dilation, strict=True)
        rows, columns = (_inside(length, side, step, spec.border) for length, side, step in axes)
        inside = rows[:, None, :, None] & columns[None, :, None, :]  # [H, W, Kh, Kw]
        shape = (*(1,) * (logits.ndim - 5), *v.shape[-3:-1], 1, 1, -1)
        logits = jnp.where(inside.reshape(shape), logits, -jnp.inf)
    softmax = FilterSpec(spec.window, dilation=spec.dilation, normalize="softmax")
    return evaluate({"y": v.dtype}, {"x": v, "spatial": logits}, softmax)["y"]


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
