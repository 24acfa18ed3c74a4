"""`ddf report`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ddf_jax.cli.checkout import FOLDER, require_checkout
from ddf_jax.cli.command import CommandResult


@dataclasses.dataclass(frozen=True)
class ReportCommand:
    """Write the page of all results, from the rows in `experiments/results` alone. Needs a checkout.

    Markdown with pictures next to it, and one HTML file that needs nothing else and no network. Every number links to
    its row. Numbers that are marked in README.md and in docs are written anew from the same rows.

    Examples:
      ddf report
      ddf report --check
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FILE.md")] = FOLDER / "docs" / "report.md"
    """The Markdown page; the HTML page has its name in the folder `site`."""
    check: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write nothing; exit status 1 if a page shows a number that no row holds."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `{pages, wrong}`: the files written, and what is wrong with numbers."""

    def run(self) -> CommandResult:
        require_checkout("report")

        raise NotImplementedError
