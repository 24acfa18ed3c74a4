"""The panels of each kind of generated filters, beside the images that they were generated from."""

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
    every = f", every {step}th" if step > 1 else ""
    rows = []
    for image in range(len(filters)):
        row = [pixels("alike filters,\nalike colours", colours[image])]
        for index, group in enumerate(groups):
            of_group = f", group {group}" if filters.shape[3] > 1 else ""
            if has_sums:
                row.append(signed(f"sums{of_group}", sums[image, index], _largest(sums[:, index])))
            row.append(signed(f"filters{of_group}{every}", mosaics[image, index], _largest(mosaics[:, index])))
        rows.append(row)
    return rows


def channel_panels(filters: np.ndarray) -> list[list[Panel]]:
    return _with_deviations(f"{min(filters.shape[-1], _CHANNELS)} channels", filter_grid(filters[..., :_CHANNELS]))


def shared_panels(kernels: np.ndarray) -> list[list[Panel]]:
    kernels = kernels[..., :_CHANNELS, :_CHANNELS]
    return _with_deviations(f"{kernels.shape[-1]}×{kernels.shape[-2]} channels", kernel_matrix(kernels))


def _with_deviations(title: str, values: np.ndarray) -> list[list[Panel]]:
    """The values of each image, and what distinguishes them from the mean of the images where there are several."""
    rows = [[signed(title, image, _largest(values))] for image in values]
    if len(values) > 1:
        deviations = values - values.mean(0)
        for row, deviation in zip(rows, deviations, strict=True):
            row.append(signed("minus the images' mean", deviation, _largest(deviations)))
    return rows


def _largest(values: np.ndarray) -> float:
    """What the strongest colour stands for: one value of 200 may lie beyond it."""
    return float(np.nanquantile(np.abs(values), 0.995)) or 1.0


# By kind: a title, and how the filters of B images become B rows.
PANELS: dict[str, tuple[str, Callable[[np.ndarray], list[list[Panel]]]]] = {
    "spatial_filters": ("Spatial filters", spatial_panels),
    "channel_filters": ("Channel filters", channel_panels),
    "shared_kernels": ("Shift-invariant kernels", shared_panels),
}
