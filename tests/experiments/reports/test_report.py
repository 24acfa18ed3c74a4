"""The report: each number links to a row that exists, and both pages need nothing but themselves and the rows."""

import re
import xml.etree.ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from experiments.benchmarks import scaling
from experiments.benchmarks.rows import to_csv
from experiments.reports import numbers, report, report_figures
from experiments.reports.blocks import Picture, Table, Text
from experiments.reports.report_html import to_html
from experiments.reports.results import RESULTS
from experiments.reports.shown import plain

PAGE = report.ROOT / "docs" / "report.md"


class Page(HTMLParser):
    """The ids of a page, its links, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.loaded += [found[name] for name in ("src", "srcset") if name in found] + ([tag] if tag == "link" else [])


@pytest.fixture(scope="module")
def blocks():
    return list(report.blocks())


def test_each_link_of_the_page_leads_to_a_line_of_a_file_of_rows():
    links = re.findall(r"\]\((\.\./[^)#]*)#L(\d+)\)", PAGE.read_text())
    assert len(links) > 200
    for file, line in set(links):
        assert len((PAGE.parent / file).read_text().splitlines()) >= int(line) > 0


def test_every_number_in_a_cell_of_a_measured_table_is_a_link(blocks):
    """But those that papers published, sizes of calls, and the error of a fit."""
    for table in (block.text for block in blocks if isinstance(block, Table)):
        heads, _, *lines = table.splitlines()
        if "load at start" in heads:
            continue
        for line in lines:
            for cell in line.strip("|").split("|")[1:]:
                left = re.sub(r"\[[^\]]*\]\([^)]*\)|±.*|\d+ to \d+", "", cell)
                assert not re.search(r"\d\.\d", left) or "published" in heads or "theory" in heads, (cell, line)


def test_the_html_page_holds_every_row_that_it_links_to_and_loads_nothing(blocks):
    text = to_html(blocks)
    page = Page(text)
    inside = [link for link in page.links if link.startswith("#")]
    assert inside == page.links
    assert len(inside) > 200
    assert {link.removeprefix("#") for link in inside} <= {*page.ids}
    assert len(page.ids) == len({*page.ids})
    assert page.loaded == []
    assert "url(http" not in text


def test_a_section_without_rows_names_the_command_that_measures_them(monkeypatch: pytest.MonkeyPatch):
    section = report.Section("Nothing", ("missing.csv",), "`ddf bench` measures them.", lambda: iter(()))
    monkeypatch.setattr(report, "SECTIONS", (section,))
    texts = [block.text for block in report.blocks() if isinstance(block, Text)]
    assert "No rows of it are committed yet. `ddf bench` measures them." in texts


@pytest.fixture
def scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The committed rows, and rows of growing sizes whose cost is that of theory."""
    for path in RESULTS.iterdir():
        if path.name != "scaling_cpu.csv":
            (tmp_path / path.name).symlink_to(path)
    rows = [
        {"implementation": name, "pass": which, "axis": axis, "size": size, "operations": size**2, "date": "2026-01-01"}
        | {"median_ms": size ** scaling.THEORY[axis], "peak_bytes": size * 2**20}
        for name in report_figures.TITLES
        for which in ("forward", "forward_backward")
        for axis in scaling.THEORY
        for size in (9, 25, 49)
    ]
    (tmp_path / "scaling_cpu.csv").write_text(to_csv(rows))
    monkeypatch.setattr(numbers, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    numbers.located_rows.cache_clear()
    yield
    numbers.located_rows.cache_clear()


def test_figures_are_pictures_with_text_in_the_page_s_own_colour(scaled):
    for picture in (block for block in report.blocks() if isinstance(block, Picture)):
        own, white = picture.svg(True), picture.svg(False)
        assert xml.etree.ElementTree.fromstring(own).tag.endswith("svg")
        assert "currentColor" in own
        assert report_figures.INK not in own
        assert report_figures.INK in white
        assert picture.alt
    assert "dynamic filter" in report_figures.latency(True)
    assert "1e" not in plain(report.speed.scaling())


def test_exponents_of_rows_stand_next_to_theory(scaled):
    line = next(line for line in plain(report.speed.scaling()).splitlines() if line.startswith("| K | forward |"))
    assert [cell.strip() for cell in line.strip("|").split("|")][2:7] == ["9 to 49", "2", "2.00 ± 0.00", "2.00", "1.00"]


def test_it_writes_the_page_its_pictures_and_one_html_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page, html = report.ROOT / "docs" / "report.md", tmp_path / "site" / "report.html"
    monkeypatch.setattr(report, "write_atomically", lambda path, text: made.update({path: text}))
    made: dict[Path, str] = {}
    written = report.write(page, html)
    assert {page, html} < {*written} == {*made}
    assert made[page] == PAGE.read_text()
    assert made[html].startswith("<!DOCTYPE html>")
    for name in re.findall(r"\]\((report/.*?\.svg)\)", made[page]):
        assert page.parent / name in made
