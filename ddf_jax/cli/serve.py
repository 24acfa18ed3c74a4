"""`ddf serve`."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from ddf_jax.cli.command import Checkpoint, CommandResult, RecipeFile
from ddf_jax.serving.limits import Limits


@dataclasses.dataclass(frozen=True)
class ServeCommand:
    """Serve a run's predictions over HTTP, until Ctrl-C or SIGTERM.

    POST an image to /predict, as the body or as the file `image` of a form (for depth also `depth`): the answer is the
    JSON of `ddf predict`, `ddf detect` or `ddf upsample`, with files as data: URLs. / is a page to try a picture,
    /health the server's state. There are no passwords and no encryption: another --host than this machine's own belongs
    behind a proxy that has both.

    Examples:
      ddf serve runs/digits --port 8000
      curl --data-binary @seven.png http://127.0.0.1:8000/predict
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder, or a file that `ddf export` wrote."""
    port: int = 8000
    """The port; 0: a free one."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0: all of this machine's."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Limits)
    checkpoint: Checkpoint = "newest"
    recipe_file: RecipeFile = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print at the end `{answered, refused, failed}`, the numbers of requests."""

    def run(self) -> CommandResult:
        from ddf_jax.serving.predictor import open_predictor
        from ddf_jax.serving.server import serve

        predictor = open_predictor(self.source, self.checkpoint, recipe_file=self.recipe_file)
        print(f"Compiling the predictions of {self.source}.", file=sys.stderr, flush=True)
        counts = serve(predictor, host=self.host, port=self.port, limits=self.limits, started=_announce)
        text = ", ".join(f"{name} {count}" for name, count in counts.items())
        return CommandResult(counts, f"Stopped; requests: {text}.")


def _announce(url: str) -> None:
    print(f"Serving on {url}; Ctrl-C stops.", flush=True)
