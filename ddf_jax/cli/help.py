"""The help of a command: tyro's, wrapped to the terminal, without its boxes and without defaults that state nothing."""

import contextlib
import io
import itertools
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

WIDEST = 100
"""Columns of text; longer lines are hard to read."""
_COLUMN = 22  # where explanations begin
_SAYS_NOTHING = re.compile(r" *\(default: (None|'')?\)$")


class Item(NamedTuple):
    """An argument and its explanation."""

    argument: str
    explanation: str


class Group(NamedTuple):
    """Arguments under one title, such as `data.crop options`."""

    title: str
    about: str
    items: list[Item]


def read_groups(print_help: Callable[[], object]) -> list[Group]:
    """The groups in tyro's help.

    Args:
        print_help: prints it; tyro then exits.
    """
    columns, output = os.environ.get("COLUMNS"), io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n")
    os.environ["COLUMNS"] = "129"  # the widest terminal for which tyro puts its boxes below each other
    try:
        with contextlib.redirect_stdout(output):
            print_help()
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns
    output.seek(0)
    return list(_read(re.sub(r"\x1b\[[0-9;]*m", "", output.read())))


def page(
    command: str, about: str, groups: list[Group], *, rest: str = "", collapsed: Collection[str] = (), hint: str = ""
) -> str:
    """The help of one command.

    Args:
        command: its name, after `ddf`.
        about: its docstring.
        groups: its arguments.
        rest: what follows them.
        collapsed: arguments of which only the names are shown, and groups of which only the title is: `--epochs`,
            `data.crop options`.
        hint: where they are explained.
    """
    positional = [item for group in groups if group.title.startswith("positional") for item in group.items]
    items = [item for group in groups if group.title == "options" for item in group.items]
    names = [item.argument.partition(" ")[0] for item in items]
    usage = " ".join(["usage: ddf", command, *(item.argument for item in positional), "[options]", rest]).strip()
    parts = [usage, prose(about)]
    if positional and not collapsed:  # or the text above has explained the one that there is
        parts.append(table(positional))
    own = [item for item, name in zip(items, names, strict=True) if name not in collapsed and name != "-h,"]
    parts.append("options:\n" + table(own))
    if collapsed:
        flags = [name for name in names if name in collapsed]
        titles = {group.title: f"--{group.title.removesuffix(' options')}.*" for group in groups}
        shown = {title for title in titles if title in collapsed and "." not in title}
        rows = [Item(titles[group.title], group.about) for group in groups if group.title in shown]
        parts.append(f"{hint}:\n" + "\n".join(filter(None, [_fill(", ".join(flags), "  "), table(rows)])))
    else:
        further = (group for group in groups if group.title != "options" and group.items[0] not in positional)
        parts += [f"{prose(f'{group.title}: {group.about}')}\n{table(group.items)}" for group in further]
    return "\n\n".join(filter(None, parts))


def families(names: Sequence[str]) -> list[str]:
    """Sorted names, those of one first word together.

    >>> families(["digits", "digits_binet", "digits_plain", "rooms_panoptic"])
    ['digits', 'digits_{binet, plain}', 'rooms_panoptic']
    """
    written: list[str] = []
    for word, group in itertools.groupby(names, lambda name: name.partition("_")[0]):
        members = list(group)
        if word in members:
            written.append(members.pop(members.index(word)))
        words = zip(*(member.split("_")[:-1] for member in members), strict=False)
        shared = [same[0] for same in itertools.takewhile(lambda same: len({*same}) == 1, words)]
        prefix = "_".join([*shared, ""])
        short = ", ".join(member.removeprefix(prefix) for member in members)
        written += [f"{prefix}{{{short}}}"] if len(members) > 1 else members
    return written


def prose(text: str) -> str:
    """Paragraphs, wrapped; indented lines, such as examples, stay as they are."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(each if "\n  " in each else _fill(" ".join(each.split())) for each in paragraphs)


def table(items: list[Item]) -> str:
    """A line for each argument, or more where its explanation is long."""
    column = min(_COLUMN, max((4 + len(item.argument) for item in items), default=0))
    lines: list[str] = []
    for argument, explanation in items:
        head = f"  {argument}".ljust(column)
        if len(head) > column or not head.endswith("  "):
            lines.append(head.rstrip())
            head = " " * column
        lines.append(_fill(explanation, head, " " * column) if explanation else head.rstrip())
    return "\n".join(filter(str.strip, lines))


def _fill(text: str, first: str = "", later: str | None = None) -> str:
    width = min(WIDEST, shutil.get_terminal_size().columns)
    return textwrap.fill(
        text,
        max(width, 40),
        initial_indent=first,
        subsequent_indent=first if later is None else later,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _read(text: str) -> Iterator[Group]:
    for box in text.split("╭─ ")[1:]:
        title, *rows = box.splitlines()
        lines = [row.strip("│").removeprefix(" ").rstrip() for row in rows if row.startswith("│")]
        rules = [index for index, line in enumerate(lines) if set(line) == {"─"}]
        first = rules[0] + 1 if rules else 0
        items: list[Item] = []
        for line in lines[first:]:
            if line.startswith(" ") and items:
                argument, explanation = items.pop()
                items.append(Item(argument, f"{explanation} {line.strip()}".strip()))
            else:
                argument, *explanation = re.split(r" {2,}", line, maxsplit=1)
                items.append(Item(argument, "".join(explanation)))
        yield Group(title.rstrip("─╮ "), " ".join(lines[: first and first - 1]), [_short(item) for item in items])


def _short(item: Item) -> Item:
    """Without a default of nothing, and without what the form of the argument states: a flag is off, a word needed."""
    explanation = _SAYS_NOTHING.sub("", item.explanation)
    item = item._replace(argument=re.sub(r"\{None\}\|(\S+|\{.*\})$", r"\1|None", item.argument))
    if not item.argument.startswith("-"):
        explanation = explanation.removesuffix(" (required)").replace("(default: '*')", "(default: *)")
    elif " " not in item.argument:
        explanation = explanation.removesuffix(" (default: False)")
    return Item(item.argument, explanation)
