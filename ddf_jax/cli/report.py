"""`ddf report`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ddf_jax.cli.checkout import FOLDER, require_checkout
from ddf_jax.cli.command import CommandResult


@dataclasses.dataclass(frozen=True)
class ReportCommand:
    """Write the page of all results; it needs a checkout.

    It is made from the rows in `experiments/results`: Markdown with pictures next to it, and one HTML file that needs
    nothing else and no network. Every number links to its row. The numbers that are marked in README.md and docs are
    written anew from the same rows.

    Examples:
      ddf report
      ddf report --check
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FILE.md")] = FOLDER / "docs" / "report.md"
    """The Markdown page, in the checkout; its pictures are in the folder of its name."""
    html: Annotated[Path, tyro.conf.arg(metavar="FILE.html")] = FOLDER / "runs" / "report.html"
    """The HTML page."""
    check: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write nothing; exit status 1 if a page shows a number that no row holds."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `{written, wrong: [{page, line, message}]}`: files, and numbers of pages that no row holds."""

    def run(self) -> CommandResult:
        require_checkout("report")
        from experiments.reports import report

        written = []
        if not self.check:
            report.check_pages(write=True)
            written = [str(path) for path in report.write(self.out, self.html)]
        wrong = report.check_pages()
        lines = [*map(str, wrong), *(f"Written: {path}" for path in written)]
        text = "\n".join(lines) or "Every measured number has its row."
        return CommandResult({"written": written, "wrong": [each._asdict() for each in wrong]}, text, int(bool(wrong)))
