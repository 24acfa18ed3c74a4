"""The panels of each kind of generated filters, beside the images that they were generated from."""

import math
from collections.abc import Callable

import numpy as np

from ddf_jax.inspect.channel_filters import filter_grid
from ddf_jax.inspect.draw import Panel, pixels, signed
from ddf_jax.inspect.shared_kernels import kernel_matrix
from ddf_jax.inspect.spatial_filters import likeness, mosaic, tap_sums

# What a panel has room for.
_GROUPS = 2
_PIXELS = 16
_CHANNELS = 64


def spatial_panels(filters: np.ndarray) -> list[list[Panel]]:
    """For each image: likeness, and of the groups that vary most the taps' sums (unless they are 0) and the filters."""
    groups = np.argsort(-filters.std((0, 1, 2)).mean(-1), kind="stable")[:_GROUPS]
    step = -(-max(filters.shape[1:3]) // _PIXELS)
    colours, chosen = likeness(filters), filters[:, :, :, groups]
    sums, mosaics = tap_sums(chosen), mosaic(chosen[:, ::step, ::step])
    has_sums = np.abs(sums).max() > 1e-4 * np.abs(filters).sum(-1).max()
    every = f", 1 in {step}×{step}" if step > 1 else ""
    rows = [[pixels("alike filters,\nalike colours", colour)] for colour in colours]
    for index, group in enumerate(groups):
        of_group = f" of group {group}" if filters.shape[3] > 1 else ""
        if has_sums:
            _add(rows, f"sums of taps{of_group}", sums[:, index])
        _add(rows, f"filters{of_group}{every}", mosaics[:, index], tile=math.isqrt(filters.shape[-1]))
    return rows


def channel_panels(filters: np.ndarray) -> list[list[Panel]]:
    filters = filters[..., :_CHANNELS]
    title = f"filters of {filters.shape[-1]} channels"
    return _with_deviations(title, filter_grid(filters), tile=math.isqrt(filters.shape[1]))


def shared_panels(kernels: np.ndarray) -> list[list[Panel]]:
    kernels = kernels[..., :_CHANNELS, :_CHANNELS]
    title = f"from {kernels.shape[-2]} to {kernels.shape[-1]} channels"
    return _with_deviations(title, kernel_matrix(kernels), tile=kernels.shape[1])


def _with_deviations(title: str, values: np.ndarray, *, tile: int) -> list[list[Panel]]:
    """The values of each image, and what distinguishes them from the mean of the images where there are several."""
    rows: list[list[Panel]] = [[] for _ in values]
    _add(rows, title, values, tile=tile)
    if len(values) > 1:
        _add(rows, "minus the images' mean", values - values.mean(0), tile=tile)
    return rows


def _add(rows: list[list[Panel]], title: str, values: np.ndarray, *, tile: int = 0) -> None:
    """One more panel in each row, all on one scale."""
    # One value of 200 may lie beyond it.
    largest = float(np.nanquantile(np.abs(values), 0.995)) or 1.0
    for row, image in zip(rows, values, strict=True):
        row.append(signed(title, image, largest, tile=tile))


# By kind: a title, and how the filters of B images become B rows.
PANELS: dict[str, tuple[str, Callable[[np.ndarray], list[list[Panel]]]]] = {
    "spatial_filters": ("Spatial filters", spatial_panels),
    "channel_filters": ("Channel filters", channel_panels),
    "shared_kernels": ("Shift-invariant kernels", shared_panels),
}
