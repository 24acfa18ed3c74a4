"""The help of the commands: it fits a screen, in plain text, and leaves out what states nothing."""

import itertools
from collections.abc import Callable

import pytest

from ddf_jax.cli import help as help_pages
from ddf_jax.cli.arguments import COMMANDS
from ddf_jax.cli.help import Group, Item

Run = Callable[..., tuple[int, str, str]]
LINES, COLUMNS = 50, 80


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_screen(ddf: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    _, out, _ = ddf(*command.split(), "--help")
    lines = out.splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert not {*"│╭╰─"} & {*out}
    assert not [
        nothing for nothing in ("(default: None)", "(default: )", "(default: False)", "{None}") if nothing in out
    ]
    assert "options:\n" in out or not command


def test_a_wide_terminal_has_lines_that_can_be_read(ddf: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    _, out, _ = ddf("train", "--help")
    assert 90 < max(map(len, out.splitlines())) <= help_pages.WIDEST


@pytest.mark.parametrize(
    "words", [("train", "rooms_mask_rcnn"), ("plan", "imagenet_ddf_resnet50"), ("evaluate", "RUN")]
)
def test_help_behind_a_recipe_or_run_explains_every_field(ddf: Run, words: tuple[str, str]) -> None:
    _, brief, _ = ddf(words[0], "--help")
    _, out, _ = ddf(*words, "--help")
    assert "explains them" in brief
    assert "explains them" not in out
    options = out.partition("options:\n")[2].splitlines()
    flags = [line.split()[0] for line in options if line.startswith("  --")]
    assert len(flags) == len({*flags}) > 15
    assert {"--data.folder", "--data.crop.area", "--data.augmentation.rand-augment.layers"} <= {*flags}
    titles = [line for line in options if line and not line.startswith(" ")]
    assert titles[0] == "data options: Other data than the recipe's." or titles[0].startswith("model options: ")
    for flag, line in itertools.pairwise(options):  # an argument that is longer than its column has the next lines
        assert not flag.startswith("  --") or line == "" or line.startswith("  "), flag


def test_an_error_of_the_command_is_not_a_help_without_arguments() -> None:
    def fails() -> None:
        raise SystemExit(2)

    with pytest.raises(SystemExit):
        help_pages.read_groups(fails)


def test_collapsed_arguments_are_names_and_collapsed_groups_a_line_each() -> None:
    groups = [
        Group("positional arguments", "", [Item("RECIPE", "A name.")]),
        Group(
            "options", "", [Item("-h, --help", "help"), Item("--json", "As JSON."), Item("--epochs FLOAT", "Epochs.")]
        ),
        Group("data options", "Images.", [Item("--data.folder PATH", "A folder.")]),
        Group("data.crop options", "Crops.", [Item("--data.crop.area A", "The area.")]),
    ]
    collapsed = {"--epochs", "data options", "data.crop options"}
    brief = help_pages.page("train", "Train a recipe.", groups, collapsed=collapsed, hint="fields")
    assert (
        brief
        == """\
usage: ddf train RECIPE [options]

Train a recipe.

options:
  --json  As JSON.

fields:
  --epochs
  --data.*  Images."""
    )
    whole = help_pages.page("train", "Train a recipe.", groups)
    assert "  RECIPE  A name." in whole
    assert "data.crop options: Crops.\n  --data.crop.area A  The area." in whole
