"""`ddf models`."""

import dataclasses
from typing import Annotated, Any

import tyro

from ddf_jax.cli.command import Result

_IMAGE = (1, 224, 224, 3)


@dataclasses.dataclass(frozen=True)
class Models:
    """List models with their parameters and multiply-accumulates (MACs) for an image of 224×224 pixels.

    Two counts are in use. Core: convolutions, matrix products and dynamic filters. mmcv: what the flops counter of mmcv
    prints, without dynamic filters but with biases, normalisation, activations and pooling.

    Examples:
      ddf models
      ddf models 'ddf_*50' --json
    """

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")] = "*"
    """A name, or a shell pattern in quotes."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `[{name, params, macs_core, macs_mmcv, published}]`."""

    def run(self) -> Result:
        from ddf_jax.models import get_config, list_models

        names = list_models(self.pattern)
        if not names and set(self.pattern).isdisjoint("*?["):
            get_config(self.pattern)  # raises, naming the nearest
        if not names:
            raise ValueError(f"No model's name matches {self.pattern!r}. `ddf models` lists all.")
        rows = [_row(name) for name in names]
        header = f"{'':20}{'parameters':>12}{'core MACs':>12}{'mmcv MACs':>12}   published"
        return Result(rows, "\n".join([header, *map(_text, rows)]))


def _row(name: str) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from ddf_jax.models import create
    from ddf_jax.models.counting import complexity
    from ddf_jax.models.published import PUBLISHED

    model = nnx.eval_shape(lambda: create(name, rngs=nnx.Rngs(0)))
    counts = complexity(model, jax.ShapeDtypeStruct(_IMAGE, jnp.float32))
    paper = PUBLISHED.get(name)
    return {"name": name, **dataclasses.asdict(counts), "published": paper._asdict() if paper else {}}


def _text(row: dict[str, Any]) -> str:
    ours = f"{row['params'] / 1e6:10.2f} M{row['macs_core'] / 1e9:10.3f} G{row['macs_mmcv'] / 1e9:10.3f} G"
    paper = row["published"]
    theirs = f"   {paper['params_millions']} M, {paper['macs_billions']} G" if paper else ""
    return f"{row['name']:20}{ours}{theirs}"
