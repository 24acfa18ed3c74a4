"""The report as one HTML file: pictures, style and rows are in it, and it needs no network."""

import html
import json
import re
from collections.abc import Sequence

from experiments.reports.blocks import Block, Heading, Picture, Table, Text
from experiments.reports.numbers import located_rows
from experiments.reports.shown import LINK

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --ground: #fff; --line: #d5d5d5; --link: #0b57a4; --soft: #f5f5f5 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --ground: #16181b; --line: #3a3d42; --link: #8ab8f0; --soft: #202327 }
}
body { color: var(--ink); background: var(--ground); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 62rem; padding: 1rem }
h2 { border-bottom: 1px solid var(--line); margin-top: 2.2em }
a { color: var(--link); text-decoration: none }
a:hover { text-decoration: underline }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: left }
td { min-width: 4.5rem }
td:nth-child(4):not(.number) { min-width: 12rem }
td.number, th.number { min-width: 0; text-align: right; white-space: nowrap }
figure { margin: 0 }
svg { height: auto; max-width: 52rem; min-width: 34rem; width: 100% }
code, pre { font-family: ui-monospace, monospace; font-size: .85em }
pre { background: var(--soft); margin: .2rem 0; overflow-wrap: anywhere; padding: .4rem; white-space: pre-wrap }
pre:target { outline: 2px solid var(--link) }
summary { cursor: pointer }
"""

SCRIPT = """
addEventListener("hashchange", open); open();
function open() {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (row && row.closest("details")) { row.closest("details").open = true; row.scrollIntoView(); }
}
"""
"""Opens the fold of a row that a link leads to."""


def to_html(blocks: Sequence[Block]) -> str:
    """The whole page, with the rows that its numbers link to at its end."""
    cited: dict[str, set[int]] = {}
    body = "\n".join(_block(block, cited) for block in blocks)
    return f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ddf-jax: results</title>
<style>{STYLE}</style>
<main>
{body.replace("<h2", "<h1", 1).replace("</h2", "</h1", 1)}
<h2>Rows</h2>
{"".join(_rows(file, lines) for file, lines in sorted(cited.items()))}
</main>
<script>{SCRIPT}</script>
</html>
"""


def _block(block: Block, cited: dict[str, set[int]]) -> str:
    match block:
        case Heading(text):
            return f'<h2 id="{_anchor(text)}">{html.escape(text)}</h2>'
        case Text(text):
            return f"<p>{_inline(text, cited)}</p>"
        case Picture(_, alt, svg):
            drawn = svg(True).replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)
            return f"<figure class=wide>{_own_names(drawn, block.name)}</figure>"
        case Table(text):
            return _table(text, cited)


def _table(text: str, cited: dict[str, set[int]]) -> str:
    heads, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines())
    right = [form.endswith(":") for form in text.splitlines()[1].strip("|").split("|")]

    def line(cells: Sequence[str], tag: str) -> str:
        marks = (" class=number" if number else "" for number in right)
        return "<tr>" + "".join(
            f"<{tag}{mark}>{_inline(cell, cited)}</{tag}>" for cell, mark in zip(cells, marks, strict=True)
        )

    body = "\n".join(line(cells, "td") for cells in rows)
    return f"<div class=wide><table><thead>{line(heads, 'th')}</thead><tbody>\n{body}\n</tbody></table></div>"


def _inline(text: str, cited: dict[str, set[int]]) -> str:
    """Escaped text with links to rows, code and bold."""

    def link(found: re.Match[str]) -> str:
        shown, file, lines = found.groups()
        numbers = [int(line) for line in lines.split(",")]
        cited.setdefault(file, set()).update(numbers)
        where = f"line {numbers[0]}" if len(numbers) == 1 else f"lines {', '.join(map(str, numbers[:8]))}"
        return f'<a href="#{_row_id(file, numbers[0])}" title="{file}, {where}">{shown}</a>'

    text = LINK.sub(link, html.escape(text, quote=False))
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*(.*?)\*\*", r"<b>\1</b>", text)


def _rows(file: str, lines: set[int]) -> str:
    found = [located for located in located_rows(file) if located.line in lines]
    rows = "\n".join(
        f'<pre id="{_row_id(file, line)}">{line}: {html.escape(json.dumps(row, ensure_ascii=False))}</pre>'
        for row, line in found
    )
    return (
        f"<details><summary><code>experiments/results/{file}</code>, {len(found)} rows</summary>\n{rows}\n</details>\n"
    )


def _own_names(svg: str, name: str) -> str:
    """The picture with names of its own for clips and markers, as a page has several pictures."""
    svg = re.sub(r'id="', f'id="{name}-', svg)
    return re.sub(r'(url\(#|xlink:href="#)', rf"\1{name}-", svg)


def _row_id(file: str, line: int) -> str:
    return f"{file}-{line}"


def _anchor(text: str) -> str:
    return text.lower().replace(" ", "-")
