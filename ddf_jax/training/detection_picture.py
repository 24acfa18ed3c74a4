"""A picture of the objects that a detector finds."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from ddf_jax.detection.pasting import paste_masks

_DRAWN = 4  # images
_SCORE = 0.5  # the least of a drawn object


def draw_detections(batch: Mapping[str, np.ndarray], detections: Any) -> bytes:
    """The first images of a batch with the boxes and masks of the objects found, as PNG.

    Args:
        batch: with `image` [B, H, W, C], normalised, and `size` [B, 2].
        detections: `ddf_jax.detection.annotations.Detections`, on the host.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = min(_DRAWN, len(batch["image"]))
    figure = Figure(figsize=(4 * count, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for row, axes in enumerate(figure.subplots(1, count, squeeze=False)[0]):
        height, width = map(int, batch["size"][row])
        image = batch["image"][row, :height, :width].astype(np.float32)
        low, high = image.min(), image.max()
        draw_objects(axes, (image - low) / max(high - low, 1e-6), of_image(detections, row, height, width))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def of_image(detections: Any, row: int, height: int, width: int) -> dict[str, Any]:
    """The likely objects of an image of a batch: `boxes`, `scores`, `labels`, and `masks` or None."""
    shown = np.arange(len(detections.scores[row])) < detections.number[row]
    shown &= detections.scores[row] >= _SCORE
    found = {name: getattr(detections, name)[row][shown] for name in ("boxes", "scores", "labels")}
    masks = detections.masks
    return found | {"masks": None if masks is None else paste_masks(masks[row][shown], found["boxes"], height, width)}


def draw_objects(axes: Any, image: np.ndarray, found: Mapping[str, Any], names: tuple[str, ...] = ()) -> None:
    """Draws an image [H, W, C] in [0, 1], and boxes, masks and labels over it."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    shown = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image.copy()
    colours = colormaps["tab10"].colors  # pyright: ignore[reportAttributeAccessIssue]
    for number, label in enumerate(found["labels"]):
        if found["masks"] is not None:
            mask = found["masks"][number]
            shown[mask] = 0.5 * shown[mask] + 0.5 * np.array(colours[int(label) % len(colours)], np.float32)
    axes.imshow(shown, interpolation="nearest")
    axes.set_axis_off()
    for (x1, y1, x2, y2), score, label in zip(found["boxes"], found["scores"], found["labels"], strict=True):
        colour = colours[int(label) % len(colours)]
        axes.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.2))
        text = f"{names[int(label)] if names else int(label)} {score:.2f}"
        axes.text(x1, y1 - 2, text, fontsize=6, color="white", backgroundcolor=(*colour, 0.8), clip_on=True)
