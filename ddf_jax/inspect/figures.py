"""Figures with a row of panels for each image, drawn without a display."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SIGNED = matplotlib.colormaps["RdBu_r"].with_extremes(bad="0.8")  # white is 0, grey is NaN
HEAT = matplotlib.colormaps["inferno"]

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]  # by label


class Panel(NamedTuple):
    """One image of a figure.

    Attributes:
        title: the title above it.
        values: the image [H, W] or [H, W, 3].
        style: keyword arguments of `imshow`.
        tile: side of the tiles that lines separate; 0 for no lines.
        overlay: a map from 0 to 1 that is drawn over it.
    """

    title: str
    values: np.ndarray
    style: Mapping[str, Any] = {}
    tile: int = 0
    overlay: np.ndarray | None = None


class SpectrumRow(NamedTuple):
    """One image, clean and under noise: a line of images, a line of feature maps, and the spectra of both."""

    images: Sequence[Panel]
    features: Sequence[Panel]
    image_spectra: Curves
    feature_spectra: Curves


def image_panel(title: str, image: np.ndarray) -> Panel:
    """An image [H, W, C] with pixels in [0, 1]."""
    if image.shape[-1] == 1:
        return Panel(title, image[..., 0], {"cmap": "gray", "vmin": 0, "vmax": 1})
    return Panel(title, image)


def signed_panel(title: str, values: np.ndarray, largest: float, *, tile: int = 0) -> Panel:
    """Values around 0, which is white; ±`largest` have the strongest colours."""
    return Panel(f"{title}\n±{largest:.2g}", values, {"cmap": SIGNED, "vmin": -largest, "vmax": largest}, tile)


def heat_panel(title: str, values: np.ndarray, largest: float) -> Panel:
    """Values from 0 to `largest`."""
    return Panel(title, values, {"cmap": HEAT, "vmin": 0, "vmax": largest})


def draw_grid(rows: Sequence[Sequence[Panel]], title: str) -> Figure:
    """A grid of panels. Only the first row and the first column have titles."""
    size, head = 2.2, 0.3
    figure = _figure((size * len(rows[0]), (size + head) * len(rows) + 2 * head), title)
    for index, (line, panels) in enumerate(
        zip(figure.subplots(len(rows), len(rows[0]), squeeze=False), rows, strict=True)
    ):
        for column, (axes, panel) in enumerate(zip(line, panels, strict=True)):
            _show(axes, panel if index == 0 or column == 0 else panel._replace(title=""))
    return figure


def draw_spectra(rows: Sequence[SpectrumRow], layer: str, title: str) -> Figure:
    """Panels of each row and, to the right of them, two plots of spectra."""
    columns = len(rows[0].images)
    figure = _figure((1.5 * columns + 6.6, 3.5 * len(rows) + 0.4), title)
    grid = figure.add_gridspec(2 * len(rows), columns + 2, width_ratios=[1] * columns + [2.2, 2.2])
    for index, row in enumerate(rows):
        both = slice(2 * index, 2 * index + 2)
        for line, panels in enumerate((row.images, row.features)):
            for column, panel in enumerate(panels):
                _show(figure.add_subplot(grid[2 * index + line, column]), panel)
        _plot(figure.add_subplot(grid[both, columns]), row.image_spectra, "spectrum of the image")
        axes = figure.add_subplot(grid[both, columns + 1])
        _plot(axes, row.feature_spectra, f"spectrum of {layer}")
        axes.legend(fontsize="x-small")
    return figure


def figure_png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def _figure(size: tuple[float, float], title: str) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize="medium")
    return figure


def _show(axes: Any, panel: Panel) -> None:
    axes.set_axis_off()
    axes.set_title(panel.title, fontsize="small")
    axes.imshow(panel.values, interpolation="nearest", **panel.style)
    height, width = panel.values.shape[:2]
    if panel.tile > 1:
        style = {"color": "black", "linewidth": min(0.6, 5 * panel.tile / max(height, width))}
        for edge in range(panel.tile, height, panel.tile):
            axes.axhline(edge - 0.5, **style)
        for edge in range(panel.tile, width, panel.tile):
            axes.axvline(edge - 0.5, **style)
    if panel.overlay is not None:
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        style = {"cmap": "turbo", "vmin": 0, "vmax": 1, "alpha": 0.55, "interpolation": "bilinear"}
        axes.imshow(panel.overlay, extent=extent, **style)


def _plot(axes: Any, curves: Curves, title: str) -> None:
    least = 1e-9 * max((powers.max() for _, powers in curves.values()), default=1.0)  # below are rounding errors, and 0
    for index, (label, (frequencies, powers)) in enumerate(curves.items()):
        style = {"color": "black", "linewidth": 2.0} if index == 0 else {"linewidth": 1.2, "marker": "."}
        axes.semilogy(frequencies, np.maximum(powers, least), label=label, **style)
    axes.set_title(title, fontsize="small")
    axes.set_xlabel("frequency (1: the finest along an axis)", fontsize="small")
    axes.set_ylabel("power", fontsize="small")
    axes.tick_params(labelsize="small")
    axes.grid(alpha=0.3)
