"""Colours that people with any colour vision tell apart, one for each class, with shades for each of its objects."""

from collections.abc import Iterable

Colour = tuple[int, int, int]

BLACK, WHITE, VOID = (0, 0, 0), (255, 255, 255), (64, 64, 64)

THINGS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Of objects. Okabe and Ito, "Color Universal Design", 2008."""

STUFF: tuple[Colour, ...] = (
    (221, 221, 221),
    (204, 221, 170),
    (255, 204, 204),
    (187, 204, 238),
    (238, 238, 187),
    (204, 238, 255),
    (102, 51, 51),
    (34, 85, 85),
    (102, 102, 51),
    (34, 34, 85),
    (34, 85, 34),
    (85, 85, 85),
)
"""Of stuff: paler, or darker. Paul Tol, "Colour schemes", 2021, "pale" and "dark"."""


def class_colours(labels: Iterable[int], palette: tuple[Colour, ...]) -> dict[int, Colour]:
    """The colour of each class: its own one of the palette, or where another class has it, the next that is free.

    >>> colours = class_colours([0, 7, 1], THINGS)
    >>> colours[0] == THINGS[0], colours[7] == THINGS[1], colours[1] == THINGS[2]
    (True, True, True)
    """
    colours: dict[int, Colour] = {}
    for label in labels:
        if label not in colours:
            order = [palette[(label + step) % len(palette)] for step in range(len(palette))]
            colours[label] = next((colour for colour in order if colour not in colours.values()), order[0])
    return colours


def shade(colour: Colour, number: int) -> Colour:
    """The colour of a class' object of a number: as it is, lighter or darker in turn."""
    towards, share = ((colour, 0.0), (WHITE, 0.35), (BLACK, 0.3))[number % 3]
    red, green, blue = (round(own + share * (other - own)) for own, other in zip(colour, towards, strict=True))
    return red, green, blue


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever has more contrast. Definition: WCAG 2.2, "relative luminance", without its exponent."""
    linear = [(value / 255) ** 2.2 for value in background]
    luminance = sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return BLACK if luminance > 0.18 else WHITE
