"""An image with the boxes, masks and names of objects."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ddf_jax.detection.rle import Rle, decode_rle
from ddf_jax.training.drawing.canvas import Canvas
from ddf_jax.training.drawing.captions import Captions
from ddf_jax.training.drawing.palette import THINGS, Colour, class_colours, shade

_FILL = 0.4  # opacity of masks


def draw_objects(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    names: Sequence[str],
    *,
    scores: Sequence[float] | np.ndarray | None = None,
    masks: Sequence[Rle] | None = None,
    largest: int | None = None,
) -> np.ndarray:
    """Draws objects on a copy of an image; a small one is enlarged to a shorter side of 480 pixels.

    Classes differ by colour and objects of a class by shade; large objects are drawn first. Names are written above
    their boxes, or where they hide less of one another.

    Args:
        image: uint8 [H, W, 3].
        boxes: x1, y1, x2, y2 in pixels [N, 4], the most important first.
        labels: the objects' classes [N].
        names: of the classes.
        scores: written with the names [N].
        masks: run lengths of the objects.
        largest: the picture's sides are reduced to at most so many pixels.

    Returns:
        uint8 [H', W', 3].
    """
    canvas = Canvas(image, largest=largest)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = [int(label) for label in labels]
    colours = object_colours(labels)
    corners = boxes * [*canvas.scale, *canvas.scale]
    for index in np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable").tolist():
        if masks is not None and (shape := canvas.mask(decode_rle(masks[index], image.shape[:2]))) is not None:
            canvas.fill(shape, colours[index], _FILL)
            canvas.stroke([shape], colours[index], 0.75 * canvas.line)
        outline = canvas.box(_within(canvas, corners[index]), radius=canvas.line)
        canvas.stroke([outline], colours[index], canvas.line if masks is None else 0.6 * canvas.line)
    captions = Captions(canvas)
    for index, label in enumerate(labels):
        score = "" if scores is None else f" {float(scores[index]):.2f}"
        captions.at_box(f"{names[label]}{score}", _within(canvas, corners[index]), colours[index])
    return canvas.pixels


def object_colours(labels: Sequence[int]) -> list[Colour]:
    """The colours of objects of these classes: those of a class are shades of one."""
    colours, counts = class_colours(labels, THINGS), Counter[int]()
    chosen = []
    for label in labels:
        chosen.append(shade(colours[label], counts[label]))
        counts[label] += 1
    return chosen


def _within(canvas: Canvas, corners: np.ndarray) -> tuple[float, float, float, float]:
    """A box whose whole line is on the canvas."""
    edge = canvas.line / 2
    limits = canvas.width - edge, canvas.height - edge
    x1, y1, x2, y2 = (min(max(float(value), edge), limits[axis % 2]) for axis, value in enumerate(corners))
    return x1, y1, x2, y2
