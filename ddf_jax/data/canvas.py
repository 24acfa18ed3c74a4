"""The arrays that images of different sizes are put into. Light: importing it loads no data library."""

from collections.abc import Sequence

from ddf_jax.errors import UserError

STRIDE = 32
"""The sides of a canvas are multiples of it, as the coarsest level of a backbone has this stride."""


def check_canvas(canvas: Sequence[int], *, upright: bool = False, **counts: int | None) -> None:
    """Raises `UserError` where the canvas is not (height, width) in multiples of `STRIDE`, or a count is below 1.

    One with `upright`, whose sides are exchanged for upright images, must be wider than high.
    """
    if len(canvas) != 2 or any(side < 1 or side % STRIDE for side in canvas):
        raise UserError(f"`canvas` must be height and width, multiples of {STRIDE}, got {tuple(canvas)}.")
    if upright and canvas[0] >= canvas[1]:
        raise UserError(f"`canvas` must be wider than high with `upright`, which exchanges them, got {tuple(canvas)}.")
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"`{name}` must be at least 1, got {value}.")
