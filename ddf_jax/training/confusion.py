"""A confusion matrix for people: what each class is taken for, as lines and as a picture."""

import io
from collections.abc import Sequence

import numpy as np

_WRITTEN = 20  # classes, up to which the picture has numbers
_NAMED = 60  # classes, up to which it has names


def class_table(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """A line for each class: its examples, the share that is recognised, and what else it is taken for most often.

    Args:
        confusion: [classes, classes], examples of a row's class that were taken for a column's.
        names: of the classes.

    >>> print(class_table([[8, 2], [0, 0]], ["cat", "dog"]))
    class  examples  accuracy  most often taken for
    cat          10    80.0 %  dog (20.0 %)
    dog           0         -
    """
    edge = max(5, *map(len, names))
    lines = [f"{'class':{edge}}  examples  accuracy  most often taken for"]
    for index, (name, row) in enumerate(zip(names, np.asarray(confusion), strict=True)):
        total, wrong = row.sum(), np.where(np.arange(len(row)) == index, 0, row)
        accuracy = f"{row[index] / total:.1%}".replace("%", " %") if total else "-"
        most = f"  {names[int(wrong.argmax())]} ({wrong.max() / total:.1%})".replace("%", " %") if wrong.any() else ""
        lines.append(f"{name:{edge}}  {total:8}  {accuracy:>8}{most}")
    return "\n".join(lines)


def draw_confusion(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> bytes:
    """The matrix as PNG, each row in shares of its class; with few classes the shares in percent.

    Args:
        confusion: as `class_table` takes it.
        names: of the classes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(2.5 + 0.35 * len(names), 4, 14))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # The root makes what is rare visible next to the diagonal.
    image = axes.imshow(np.sqrt(shares), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    if len(names) <= _NAMED:
        axes.set_xticks(range(len(names)), names, rotation=0 if max(map(len, names)) < 3 else 90)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= _WRITTEN:
        for (row, column), share in np.ndenumerate(shares):
            if counts[row, column]:
                text = f"{100 * share:.0f}" if share >= 0.01 else "<1"
                colour = "black" if share > 0.4 else "white"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    bar = figure.colorbar(image, ax=axes, ticks=np.sqrt([0, 0.01, 0.05, 0.2, 0.5, 1]), shrink=0.8)
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "20 %", "50 %", "100 %"])
    bar.set_label("share of the class")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
