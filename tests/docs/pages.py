"""The pages of the documentation, their blocks of code, and the examples."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.imports import ROOT

PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md")), *(ROOT / "examples").glob("*.md")]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


class Block(NamedTuple):
    """A fenced block, within a list or not."""

    language: str
    text: str
    line: int
    """Lines of the page before the text."""


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page's text."""
    for found in re.finditer(r"^( *)```([^\n]*)\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL):
        indent, language, text = found.groups()
        yield Block(language.strip(), re.sub(rf"^{indent}", "", text, flags=re.M), page[: found.start(3)].count("\n"))


def program(page: Path) -> str:
    """The Python blocks of a page as one program, whose lines are those of the page."""
    lines: list[str] = []
    for block in blocks(page.read_text()):
        if block.language == "python":
            lines += [""] * (block.line - len(lines)) + block.text.splitlines()
    return "\n".join(lines)
