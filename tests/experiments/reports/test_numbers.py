"""Every measured number of README and the documentation is that of a row, and the check sees one that is not."""

import re
from pathlib import Path

import pytest

from experiments.reports import numbers, report

ROOT = Path(__file__).parents[3]
ROWS = "name,pass,ms,bytes\na,forward,1.25,1048576\nb,forward,5,2097152\na,both,2,3\nb,both,32,4\n"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "run1.json").write_text('{"name": "one", "score": 0.9861, "of": {"noise": 0.25}}')
    (tmp_path / "run2.json").write_text('{"name": "two", "score": 0.5, "of": {"noise": 0.5}}')
    monkeypatch.setattr(numbers, "RESULTS", tmp_path)
    numbers.located_rows.cache_clear()
    yield
    numbers.located_rows.cache_clear()


def wrong(text: str) -> list[str]:
    return [each.message for each in numbers.check("page.md", text, {"t": lambda: "| a |\n|---|\n| 2 |\n"})[1]]


def test_the_documentation_shows_no_number_that_no_row_holds():
    assert [str(each) for each in report.check_pages()] == []


def test_one_changed_digit_of_any_measured_number_in_readme_is_found():
    text = (ROOT / "README.md").read_text()
    marked = list(numbers.MARKED.finditer(text))
    assert len(marked) >= 8
    for found in marked:
        for place in range(found.start(), found.start() + len(numbers.NUMBER.match(text, found.start())[0])):  # pyright: ignore[reportOptionalSubscript]
            if text[place].isdigit():
                changed = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
                corrected, errors = numbers.check("README.md", changed, {})
                assert len(errors) == 1, errors
                assert corrected == text


def test_a_comment_that_is_lost_is_found():
    text = (ROOT / "README.md").read_text()
    errors = numbers.check("README.md", numbers.MARK.sub("", text), {})[1]
    speedup, accuracy = (re.search(rf"\d[\d.]*{unit}(?=<!-- row)", text) for unit in ("×", " %"))
    assert speedup
    assert accuracy
    assert {error.message for error in errors} >= {f"{found[0]!r} names no row" for found in (speedup, accuracy)}


@pytest.mark.parametrize(
    ("shown", "source"),
    [
        ("1.3 ms", "rows.csv ms name=a pass=forward"),
        ("1.25", "rows.csv ms name=a pass=forward"),
        ("4×", "rows.csv ms name=b/a pass=forward"),
        ("8.0 times", "rows.csv ms name=b/a geomean"),
        ("16", "rows.csv ms name=b/a max"),
        ("2 MiB", "rows.csv bytes name=b pass=forward /2**20"),
        ("1,250 µs", "rows.csv ms name=a pass=forward *1e3"),
        ("98.6 %", "run1.json score *100"),
        ("1.4 %", "run1.json 1-score *100"),
        ("0.25", "run1.json of.noise"),
        ("50 %", "run*.json of.noise name=one/two *100"),
        ("4", "rows.csv ms count"),
    ],
)
def test_a_number_is_its_rows_value_rounded_to_the_digits_that_it_shows(results, shown: str, source: str):
    assert wrong(f"It is {shown}<!-- row: {source} --> here.") == []
    other = shown.replace(shown[0], str((int(shown[0]) + 1) % 10), 1)
    assert len(wrong(f"It is {other}<!-- row: {source} --> here.")) == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("rows.csv ms", "expected one row, got 4"),
        ("rows.csv ms name=c", "expected one row, got 0"),
        ("rows.csv s name=a pass=both", "expected one row, got 0"),
        ("missing.csv ms", "there is no experiments/results/missing.csv"),
        ("rows.csv ms average", "expected NAME=VALUE, a unit"),
        ("rows.csv ms name=a/c", "expected as many rows of name=a/c, got 2 and 0"),
    ],
)
def test_a_comment_that_names_no_row_is_an_error(results, source: str, message: str):
    [found] = wrong(f"It takes 2 ms<!-- row: {source} --> here.")
    assert message in found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is 32× as fast.", "'32×' names no row"),
        ("It takes 1.5 ms.", "'1.5 ms' names no row"),
        ("No less than 98.6 %.", "'98.6 %' names no row"),
        ("It makes 6,299 images/s.", "'6,299 images/s' names no row"),
        ("It needs 4.72 GiB.", "'4.72 GiB' names no row"),
        ("| a | b |\n|---|--:|\n| x | 1.35 (20) |", "a table of numbers without `<!-- table: NAME -->`: 1.35 (20)"),
        ("<!-- table: t -->\n| a |\n|---|\n| 3 |\n", "not the rows' table: t"),
        ("<!-- table: u -->\n| a |\n|---|\n| 3 |\n", "there is no table u; there are t"),
    ],
)
def test_a_measured_number_without_its_row_is_an_error(results, text: str, found: str):
    assert wrong(text) == [found]


@pytest.mark.parametrize(
    "text",
    [
        "A 3×3 convolution of 8×56×56×64 pixels with K = 3, JAX 0.10.2, 2026-11-29.",
        "`sleep 5 s` and\n```\n100 % | 3 ms\n```\nand [a link](a.md#100-ms).",
        "| a | b |\n|---|---|\n| x | `fsdp` (1) |",
        "<!-- table: t -->\n| a |\n|---|\n| 2 |\n",
    ],
)
def test_what_is_no_measurement_needs_no_row(results, text: str):
    assert wrong(text) == []


def test_a_phrase_that_a_page_does_not_have_is_not_excused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(numbers.SETTINGS, "page.md", ("within 6 s",))
    assert wrong("It ends within\n6 s.") == []
    assert wrong("It ends.") == ["SETTINGS lists 'within 6 s', which the page does not have"]
    assert wrong("It ends within 6 s, or in 7 s.") == ["'7 s' names no row"]
