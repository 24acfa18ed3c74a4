"""A plot of the error of each layer."""

import io
from collections.abc import Sequence
from pathlib import Path

from ddf_jax.errors import UserError
from ddf_jax.verify.report import Report

# The kinds that are drawn, in the order of the network's layers. An exact match is drawn at the floor of the axis.
_KINDS = {"evaluation": "output in evaluation", "training": "output in training", "gradient": "gradient of parameter"}
_FLOOR = 1e-17


def draw_errors(reports: Sequence[Report], path: Path) -> None:
    """Writes a PNG with a panel for each report: the relative error of each layer against its depth.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2 * len(reports)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, report in zip(figure.subplots(len(reports), squeeze=False)[:, 0], reports, strict=True):
        for kind, label in _KINDS.items():
            errors = report.errors.get(kind, {}).values()
            depth = [index / max(len(errors) - 1, 1) for index in range(len(errors))]
            axes.semilogy(depth, [max(error, _FLOOR) for error in errors], ".", markersize=4, label=label)
        axes.axhline(report.tolerance, color="black", linewidth=0.8, label="tolerance")
        axes.set_title(f"{report.model}, {report.dtype}, {report.size[0]}×{report.size[1]}")
        axes.set_xlabel("depth (0: image, 1: logits)")
        axes.set_ylabel("relative error")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", fontsize="small")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    try:
        path.write_bytes(image.getvalue())
    except OSError as error:
        raise UserError(f"Cannot write the plot {path}: {error.strerror}.") from error
