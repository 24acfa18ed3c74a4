"""What the report is made of, before it becomes Markdown or HTML. Numbers in texts and tables are links of `shown`."""

from collections.abc import Callable
from typing import NamedTuple


class Heading(NamedTuple):
    text: str


class Text(NamedTuple):
    text: str


class Table(NamedTuple):
    text: str


class Picture(NamedTuple):
    """A figure of rows.

    Args:
        name: of the file, without its ending.
        alt: what it shows.
        svg: draws it; True for the page's own colours instead of black on white.
    """

    name: str
    alt: str
    svg: Callable[[bool], str]


Block = Heading | Text | Table | Picture
