"""The figures of the report, drawn from rows as SVG."""

import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from experiments.reports.numbers import located_rows
from experiments.reports.shown import need
from experiments.reports.speed_tables import CALLS, GPU

INK = "#010101"  # of text and axes: becomes the page's own colour
TITLES = {"best": "dynamic filter", "unfold": "unfold and product", "depthwise": "depthwise convolution (XLA)"}
STYLES: dict[str, dict[str, Any]] = {
    "best": {"color": "#0072b2", "marker": "o"},
    "unfold": {"color": "#d55e00", "marker": "s", "linestyle": "--"},
    "depthwise": {"color": "#009e73", "marker": "^", "linestyle": ":"},
}
KERNELS = {"triton": ("#0072b2", "Pallas:Triton"), "mosaic_gpu": ("#d55e00", "Pallas:Mosaic GPU")}
FLOPS = 2  # of a multiplication and an addition


def latency(own_colours: bool) -> str:
    """Milliseconds against the height of the image, both passes."""
    return _svg(lambda axes, which: _lines(axes, which, "H·W"), own_colours)


def memory(own_colours: bool) -> str:
    """MiB against the filter size, both passes."""
    return _svg(lambda axes, which: _lines(axes, which, "K"), own_colours)


def roofline(own_colours: bool) -> str:
    """Forward kernels of both implementations, predicted and measured, below the bandwidth of a copy."""
    copy = need(GPU, "bytes_per_second", implementation="copy").number
    measured = {
        row["shape"]: row["median_ms"]
        for row, _ in located_rows(GPU)
        if row.get("part") == "timings" and row["implementation"] == "triton" and row["pass"] == "forward"
    }

    def draw(axes: Axes) -> None:
        low, high = 0.5, 16
        axes.plot([low, high], [1e-12 * copy * low, 1e-12 * copy * high], color=INK, label="bandwidth of a copy")
        for implementation, (colour, title) in KERNELS.items():
            rows = [
                row
                for row, _ in located_rows("kernels/kernels.json")
                if (row["implementation"], row["kernel"]) == (implementation, "forward") and row["call"] in CALLS
            ]
            points = [_intensity(row) for row in rows]
            rates = [flops / row["predicted_us"] * 1e-6 for row, (_, flops) in zip(rows, points, strict=True)]
            style: dict[str, Any] = {
                "linestyle": "",
                "marker": "o" if implementation == "triton" else "s",
                "color": colour,
            }
            axes.plot([x for x, _ in points], rates, **style, fillstyle="none", label=f"{title}, predicted")
            found = [
                (x, flops / measured[row["call"]] * 1e-9)
                for row, (x, flops) in zip(rows, points, strict=True)
                if implementation == "triton" and row["call"] in measured
            ]
            if found:
                axes.plot(*zip(*found, strict=True), **style, label=f"{title}, measured")
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="operations per byte",
            ylabel="10¹² operations a second",
        )
        axes.set_xticks([0.5, 1, 2, 4, 8, 16], ["0.5", "1", "2", "4", "8", "16"], minor=False)
        axes.set_yticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", "64"])
        axes.set_xticks([], minor=True)
        axes.set_yticks([], minor=True)
        axes.legend(fontsize=9, frameon=False, labelcolor=INK)

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    draw(figure.subplots())
    return _written(figure, own_colours)


def _intensity(row: Mapping) -> tuple[float, float]:
    """Operations per byte of a forward kernel's call, and its operations."""
    batch, height, width, channels = row["x"]
    steps = row["stride"]
    outputs = batch * -(-height // steps[0]) * -(-width // steps[1]) * channels
    flops = FLOPS * outputs * row["kernel_size"][0] * row["kernel_size"][1]
    return flops / row["minimum_bytes"], flops


def _lines(axes: Axes, which: str, axis: str) -> None:
    rows = [row for row, _ in located_rows("scaling_cpu.csv") if (row["axis"], row["pass"]) == (axis, which)]
    column, unit = ("median_ms", 1.0) if axis == "H·W" else ("peak_bytes", 2.0**20)
    for name, title in TITLES.items():
        of_it = [row for row in rows if row["implementation"] == name]
        sizes = [float(row["size"]) ** (0.5 if axis == "H·W" else 1) for row in of_it]
        axes.plot(sizes, [float(row[column]) / unit for row in of_it], **STYLES[name], label=title)
    ticks = sorted({float(row["size"]) ** (0.5 if axis == "H·W" else 1) for row in rows})
    axes.set(xscale="log", yscale="log", title=which.replace("_", " + "))
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("height and width, pixels" if axis == "H·W" else "filter size K")
    axes.set_ylabel("ms" if axis == "H·W" else "MiB")


def _svg(draw: Callable[[Axes, str], None], own_colours: bool) -> str:
    figure = Figure(figsize=(8.4, 3.8), layout="constrained")
    for axes, which in zip(figure.subplots(1, 2), ("forward", "forward_backward"), strict=True):
        draw(axes, which)
    figure.axes[0].legend(fontsize=9, frameon=False, labelcolor=INK)
    return _written(figure, own_colours)


def _written(figure: Figure, own_colours: bool) -> str:
    """The figure as SVG with text as text; in the page's own colours its ink is the text's and it has no ground."""
    FigureCanvasSVG(figure)
    for axes in figure.axes:
        axes.grid(color=INK, alpha=0.15)
        axes.tick_params(colors=INK, which="both")
        for part in (axes.xaxis.label, axes.yaxis.label, axes.title):
            part.set_color(INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
        axes.set_facecolor("none")
    file = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif"}
    with mpl.rc_context(settings):
        ground = "none" if own_colours else "white"
        figure.savefig(file, format="svg", facecolor=ground, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    return svg.replace(INK, "currentColor") if own_colours else svg
