"""Checks of shapes, with messages that state the rule, what was expected, what was given, and what to do."""

from typing import Any

from jax import Array
from jax.core import Tracer

from ddf_jax.errors import UserError


def check_feature_map(x: Array, channels: int | None = None, *, name: str = "x") -> None:
    """Checks that x is a feature map [B, H, W, C].

    Args:
        x: the array.
        channels: C; any number where it is None.
        name: of the array, for the message.

    Raises:
        UserError: x has another shape.

    >>> import jax.numpy as jnp
    >>> check_feature_map(jnp.ones((2, 8, 5, 7)), 8)
    Traceback (most recent call last):
    ddf_jax.errors.UserError: `x` must be [B, H, W, C] with C = 8, got (2, 8, 5, 7). Channels come last: pass \
x.transpose(0, 2, 3, 1).
    """
    if x.ndim == 4 and channels in (None, x.shape[3]):
        return
    if x.ndim == 3 and channels in (None, x.shape[2]):
        advice = f"The batch axis is missing: pass {name}[None]."
    elif x.ndim == 4 and x.shape[1] == channels:
        advice = f"Channels come last: pass {name}.transpose(0, 2, 3, 1)."
    elif x.ndim == 4:
        advice = _other_channels(x.shape[3])
    else:
        advice = "Reshape it, or map further axes with jax.vmap."
    expected = "" if channels is None else f" with C = {channels}"
    raise UserError(f"`{name}` must be [B, H, W, C]{expected}, got {x.shape}. {advice}")


def check_channels(x: Array, channels: int, *, name: str = "x") -> None:
    """Checks that x has `channels` channels on its last axis: [B, …, C].

    Raises:
        UserError: x has another number of channels, or no axis before them.
    """
    if x.ndim >= 2 and x.shape[-1] == channels:
        return
    if x.shape == (channels,):
        advice = f"The batch axis is missing: pass {name}[None]."
    elif x.ndim > 2 and x.shape[1] == channels:
        advice = f"Channels come last: pass jnp.moveaxis({name}, 1, -1)."
    else:
        advice = _other_channels(x.shape[-1] if x.ndim else 1)
    raise UserError(f"`{name}` must be [B, …, C] with C = {channels}, got {x.shape}. {advice}")


def check_vectors(x: Array, channels: int, *, name: str = "x") -> None:
    """Checks that x is one vector for each sample, [B, C].

    Raises:
        UserError: x has another shape.
    """
    check_channels(x, channels, name=name)
    if x.ndim != 2:
        raise UserError(
            f"`{name}` must be [B, C] with C = {channels}, got {x.shape}. Average it over its pixels first."
        )


def check_depth_and_image(low: Array, image: Array, scale: int) -> None:
    """Checks that low is depth [B, ⌈H/S⌉, ⌈W/S⌉, 1] and image [B, H, W, C].

    Raises:
        UserError: they have other shapes, or the scale is no positive int.
    """
    if not isinstance(scale, int) or scale < 1:
        raise UserError(f"`scale` must be an int ≥ 1, got {scale!r}.")
    batch, height, width = (*image.shape, 0, 0, 0)[:3]
    expected = (batch, -(-height // scale), -(-width // scale), 1)
    if image.ndim != 4 or low.shape != expected:
        raise UserError(
            f"`image` must be [B, H, W, C] and `low` [B, ⌈H/{scale}⌉, ⌈W/{scale}⌉, 1] = {expected}, got {image.shape} "
            f"and {low.shape}. Crop the image, or pass another `scale`."
        )


def check_positive(**numbers: Any) -> None:
    """Checks that each number is positive. Numbers that `jax.jit` traces are unknown and pass.

    Raises:
        UserError: one is 0, negative or not a number.

    >>> check_positive(steps=0)
    Traceback (most recent call last):
    ddf_jax.errors.UserError: `steps` must be positive, got 0.
    """
    for name, number in numbers.items():
        if not isinstance(number, Tracer) and not number > 0:
            raise UserError(f"`{name}` must be positive, got {number}.")


def check_odd(**sizes: int) -> None:
    """Checks that each size, of a window around a pixel, is odd.

    Raises:
        UserError: one is even.

    >>> check_odd(kernel_size=4)
    Traceback (most recent call last):
    ddf_jax.errors.UserError: `kernel_size` must be odd, got 4.
    """
    for name, size in sizes.items():
        if size % 2 == 0:
            raise UserError(f"`{name}` must be odd, got {size}.")


def _other_channels(channels: int) -> str:
    return f"Make the layer for {channels} channels, or convolve the array to its number of channels first."
