"""`ddf models`."""

import dataclasses
from typing import Annotated, Any

import tyro

from ddf_jax.cli.command import CommandResult
from ddf_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ModelsCommand:
    """List models with their parameters and multiply-accumulates.

    Multiply-accumulates (MACs) of one image have two counts. Core: convolutions, matrix products and dynamic filters.
    mmcv: what the flops counter of mmcv prints, without dynamic filters but with biases, normalisation, activations and
    pooling.

    The image has 224×224 pixels. Of a detector, it has MMDetection's 800×1280 (height × width), with 1000 regions in
    each box head and 100 in each mask head; published parameters are those that are trained, without the backbone's
    stem and first stage (of Panoptic FPN, all).

    Examples:
      ddf models
      ddf models 'ddf_*50' --json
      ddf models --published
    """

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[PATTERN]")] = "*"
    """A name, or a shell pattern in quotes."""
    published: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Recompute the papers' tables instead; PATTERN is then a table's name."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `[{name, params, macs_core, macs_mmcv, published}]`, or `[{table, row, column, published, computed, equal,
    note}]`."""

    def run(self) -> CommandResult:
        if self.published:
            return self._tables()
        from ddf_jax.models import get_config, list_models

        names = list_models(self.pattern)
        if not names and set(self.pattern).isdisjoint("*?["):
            get_config(self.pattern)  # raises, naming the nearest
        if not names:
            raise UserError(f"No model's name matches {self.pattern!r}. `ddf models` lists all.")
        rows = [_row(name) for name in names]
        header = f"{'':27}{'parameters':>12}{'core MACs':>12}{'mmcv MACs':>12}   published"
        return CommandResult(rows, "\n".join([header, *map(_text, rows)]))

    def _tables(self) -> CommandResult:
        from ddf_jax.analysis.comparison import NAMES, compare, markdown

        cells = list(compare(self.pattern))
        if not cells:
            raise UserError(f"No table's name matches {self.pattern!r}. There are: {'; '.join(NAMES)}.")
        return CommandResult([cell._asdict() for cell in cells], markdown(cells))


def _row(name: str) -> dict[str, Any]:
    from ddf_jax.analysis.comparison import count
    from ddf_jax.analysis.published import PUBLISHED
    from ddf_jax.analysis.published_detectors import PUBLISHED_DETECTORS

    size, paper = count(name), PUBLISHED.get(name) or PUBLISHED_DETECTORS.get(name)
    macs = {"macs_core": size.macs_core, "macs_mmcv": size.macs_mmcv}
    return {"name": name, "params": size.params, **macs, "published": paper._asdict() if paper else {}}


def _text(row: dict[str, Any]) -> str:
    ours = f"{row['params'] / 1e6:10.2f} M{row['macs_core'] / 1e9:10.3f} G{row['macs_mmcv'] / 1e9:10.3f} G"
    paper = row["published"]
    printed = (("params_millions", "M"), ("macs_billions", "G"))
    theirs = ", ".join(f"{paper[key]} {unit}" for key, unit in printed if paper.get(key) is not None)
    return f"{row['name']:27}{ours}   {theirs}".rstrip()
