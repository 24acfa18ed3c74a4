"""`curves.png`: loss, quality and learning rate over a run."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ddf_jax.files import write_atomically


def draw_curves(rows: Sequence[dict[str, Any]], path: Path, *, title: str, quality: str = "accuracy") -> None:
    """Draws the rows of `metrics.jsonl`, one panel of `train_<quality>` and `test_<quality>`.

    Needs no display and leaves matplotlib's global state alone.
    """
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = {
        "loss": ("train_loss", "test_loss"),
        quality: (f"train_{quality}", f"test_{quality}"),
        "learning rate": ("learning_rate",),
    }
    for axes, (label, names) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name in names:
            points = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
            style = {"marker": "o", "markersize": 3} if name.startswith("test_") else {"linewidth": 0.8}
            axes.plot(*zip(*points, strict=True) if points else ([], []), label=name.replace("_", " "), **style)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomically(path, image.getvalue())
