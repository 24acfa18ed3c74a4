"""Checks of the arguments of the public operators. Messages state the rule, the expected and the given value."""

import math
import operator
from collections.abc import Sequence
from typing import Any, Literal, SupportsFloat, SupportsIndex, get_args

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from pallas_kernels.ops.spec import Normalize, Padding, Pair, same_padding

FLOATS = ("float32", "bfloat16", "float16", "float64")

PaddingMode = Literal["zeros", "reflect", "replicate"]


def as_array(name: str, value: ArrayLike) -> Array:
    """The value as an array of floating-point numbers."""
    array = jnp.asarray(value)
    if array.dtype.name not in FLOATS:
        raise ValueError(f"`{name}` must have a dtype of {', '.join(FLOATS)}, got {array.dtype}. Cast it first.")
    return array


def as_image(name: str, value: ArrayLike, axes: str = "[B, H, W, C]") -> Array:
    """The value as an array [..., B, H, W, C]."""
    if value is None:
        raise ValueError(f"`{name}` must be an array {axes}, got None.")
    array = as_array(name, value)
    if array.ndim < 4 or 0 in array.shape[-3:]:
        advice = f" The batch axis is missing: pass {name}[None], and filters alike." if array.ndim == 3 else ""
        raise ValueError(f"`{name}` must be {axes} with no empty axis but the batch, got {array.shape}.{advice}")
    return array


def positive(name: str, value: SupportsIndex) -> int:
    """The value as Python's int: NumPy has integers of its own."""
    number = _integer(value)
    if number is None or number < 1:
        raise ValueError(f"`{name}` must be an int ≥ 1, got {value!r}.")
    return number


def positive_pair(name: str, value: Any) -> Pair:
    """The value, or one value for height and width, as a pair of Python's ints."""
    values = value if isinstance(value, Sequence) and len(value) == 2 else (value, value)
    first, second = map(_integer, values)
    if first is None or second is None or min(first, second) < 1:
        raise ValueError(f"`{name}` must be an int ≥ 1 or two of them (height, width), got {value!r}.")
    return first, second


def number(name: str, value: Any) -> float:
    """The value as Python's float."""
    try:
        if isinstance(value, SupportsFloat):
            return float(value)
    except TypeError:  # an array of several numbers, or a traced one
        pass
    raise ValueError(
        f"`{name}` must be a number that is known while tracing, got {value!r}. Multiply an array by a traced one."
    )


def kernel_size_of(kernel_size: Any, spatial: Array | None, channel: Array | None) -> Pair:
    """The kernel size, given or inferred from the number of taps."""
    if spatial is not None and spatial.ndim >= 1:
        taps, source = spatial.shape[-1], f"the last axis of spatial {spatial.shape}"
    elif channel is not None and channel.ndim >= 2:
        taps, source = channel.shape[-2], f"the last axis but one of channel {channel.shape}"
    elif spatial is not None:
        raise ValueError(f"`spatial` must end in [G, T], got {spatial.shape}.")
    elif channel is not None:
        raise ValueError(f"`channel` must end in [T, C], got {channel.shape}.")
    else:
        raise ValueError("`spatial` and `channel` must not both be None: there would be no filter.")
    if kernel_size is not None:
        rows, columns = positive_pair("kernel_size", kernel_size)
        if rows * columns != taps:
            raise ValueError(f"T must be {rows}·{columns} for kernel_size={kernel_size!r}, got {taps} from {source}.")
        return rows, columns
    side = math.isqrt(taps)
    if side**2 != taps or side % 2 == 0:
        raise ValueError(
            f"T must be the square of an odd kernel size (1, 9, 25, 49, …), got {taps} from {source}. For another "
            "kernel give `kernel_size=(height, width)`."
        )
    return side, side


def is_named(padding: Any, name: str) -> bool:
    """Whether the padding is this one, of those by name. It may be an array, too."""
    return isinstance(padding, str) and padding == name


def as_padding(padding: Any, kernel_size: Pair, dilation: Pair) -> Padding:
    """The padding as ((top, bottom), (left, right))."""
    if is_named(padding, "SAME"):
        return same_padding(kernel_size, dilation)
    if is_named(padding, "VALID"):
        return (0, 0), (0, 0)
    try:
        (top, bottom), (left, right) = ((operator.index(side) for side in axis) for axis in padding)
    except (TypeError, ValueError):
        top = bottom = left = right = -1
    if min(top, bottom, left, right) < 0:
        raise ValueError(f"`padding` must be 'SAME', 'VALID' or ((top, bottom), (left, right)) ≥ 0, got {padding!r}.")
    return (top, bottom), (left, right)


def check_padding_mode(mode: str, padding: Padding, size: Sequence[Any]) -> None:
    if mode not in get_args(PaddingMode):
        raise ValueError(f"`padding_mode` must be one of {get_args(PaddingMode)}, got {mode!r}.")
    for name, length, sides in zip("HW", size, padding, strict=True):
        if mode == "reflect" and isinstance(length, int) and max(sides) >= length:
            raise ValueError(f"padding_mode='reflect' needs {name} > the padding, got {name}={length} for {padding=}.")


def check_fits(size: Sequence[Any], grid: tuple[Any, Any], kernel_size: Pair, dilation: Pair, name: str = "x") -> None:
    """Checks that the filter has a position on the padded image."""
    if any(isinstance(count, int) and count < 1 for count in grid):
        raise ValueError(
            f"The padded `{name}` must be at least as large as the filter, got (H, W) = {size} for {kernel_size=}, "
            f"{dilation=}. Add padding."
        )


def check_normalize(normalize: str | None, spatial: Array | None, taps: int) -> None:
    if normalize is None:
        return
    if normalize not in get_args(Normalize):
        raise ValueError(f"`normalize` must be None or one of {get_args(Normalize)}, got {normalize!r}.")
    if spatial is None:
        raise ValueError(f"`spatial` must be given where it is normalised, got None for {normalize=}.")
    if normalize == "filter_norm" and taps < 2:
        raise ValueError(f"normalize='filter_norm' needs at least 2 taps: one has no deviation, got {taps}.")


def check_combine(combine: str) -> None:
    if combine not in ("mul", "add"):
        raise ValueError(f"`combine` must be 'mul' or 'add', got {combine!r}.")


def check_shape(name: str, rule: str, expected: tuple, array: Array, x: Array, *context: str, of: str = "x") -> None:
    fits = array.ndim == len(expected)
    fits = fits and all(want == "G" or want == have for want, have in zip(expected, array.shape, strict=True))
    if not fits:
        wanted = "(" + ", ".join(map(str, expected)) + ")"
        seen = ", ".join([f"{of}.shape={x.shape}", *context])
        raise ValueError(f"`{name}` must be {rule} = {wanted}, got {array.shape} for {seen}.")


def check_groups(spatial: Array, channels: int) -> None:
    groups = spatial.shape[-2]
    if groups == 0 or channels % groups:
        raise ValueError(f"The groups of `spatial` must divide the channels of `x`: C={channels}, got G={groups}.")


def _integer(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        return None
