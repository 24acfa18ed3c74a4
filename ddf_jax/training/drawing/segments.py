"""An image with its panoptic segmentation."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ddf_jax.detection.panoptic import INSTANCE
from ddf_jax.training.drawing.canvas import Canvas
from ddf_jax.training.drawing.captions import Captions
from ddf_jax.training.drawing.objects import object_colours
from ddf_jax.training.drawing.palette import STUFF, VOID, WHITE, class_colours

_FILL = 0.65  # opacity of segments
_GRID = 96  # pixels of the longer side of a mask in which room for a name is looked for
_ROOM = 0.008  # the share of the picture's pixels below which an object is not named
_ASPECT = 3  # width of a name by its height


def draw_segments(image: np.ndarray, ids: np.ndarray, names: Sequence[str], num_things: int) -> np.ndarray:
    """Draws the segments over a copy of an image, enlarged as by `draw_objects`, and writes their names.

    The name of stuff is written where it has the most room, that of an object only if the object is large enough.
    Pixels of no segment are dark.

    Args:
        image: uint8 [H, W, 3].
        ids: the segment of each pixel, class + 1000 · number of the object, 0 for none [H, W].
        names: of the classes of things, then of stuff.
        num_things: classes of things.

    Returns:
        uint8 [H', W', 3].
    """
    canvas = Canvas(image)
    numbers = [int(number) for number in np.unique(ids) if number]
    labels = {number: number % INSTANCE for number in numbers}
    things = [number for number in numbers if labels[number] < num_things]
    stuff = [number for number in numbers if number not in things]
    colours = dict(zip(things, object_colours([labels[number] for number in things]), strict=True))
    of_stuff = class_colours([labels[number] - num_things for number in stuff], STUFF)
    colours |= {number: of_stuff[labels[number] - num_things] for number in stuff}
    masks = {number: ids == number for number in numbers}
    if (void := canvas.mask(ids == 0)) is not None:
        canvas.fill(void, VOID, _FILL)
    shapes = {number: shape for number, mask in masks.items() if (shape := canvas.mask(mask)) is not None}
    for number, shape in shapes.items():
        canvas.fill(shape, colours[number], _FILL)
    canvas.stroke(shapes.values(), WHITE, 0.6 * canvas.line)
    captions = Captions(canvas)
    for number in [*stuff, *things]:
        if number in stuff or masks[number].mean() >= _ROOM:
            x, y = roomiest_point(masks[number])
            captions.around(names[labels[number]], x * canvas.width, y * canvas.height, colours[number])
    return canvas.pixels


def roomiest_point(mask: np.ndarray) -> tuple[float, float]:
    """Where in a mask, bool [H, W], a wide text has the most room: x and y as shares of the width and height.

    The mask, reduced, loses its rim, more at the sides than above and below, until nothing would be left.
    """
    height, width = mask.shape
    size = max(1, round(_GRID * width / max(mask.shape))), max(1, round(_GRID * height / max(mask.shape)))
    reduced = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX))
    left = reduced >= max(1, min(128, int(reduced.max())))
    while (fewer := _without_rim(left)).any():
        left = fewer
    rows, columns = np.nonzero(left)
    best = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
    return float((columns[best] + 0.5) / size[0]), float((rows[best] + 0.5) / size[1])


def _without_rim(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, ((1, 1), (_ASPECT, _ASPECT)))
    kept = mask.copy()
    for row in range(3):
        kept &= padded[row : row + len(mask), _ASPECT : _ASPECT + mask.shape[1]]
    for column in range(2 * _ASPECT + 1):
        kept &= padded[1:-1, column : column + mask.shape[1]]
    return kept
