"""`ddf evaluate`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ddf_jax.cli.command import Result


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a run's newest checkpoint on the data that its recipe tests on.

    Example:
      ddf evaluate runs/digits
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the scores as JSON."""

    def run(self) -> Result:
        from ddf_jax.training.mesh import initialize_processes
        from ddf_jax.training.run import evaluate
        from ddf_jax.training.run_folder import RunFolder
        from ddf_jax.training.tasks import task_of

        initialize_processes()
        scores = evaluate(self.folder)
        task = task_of(RunFolder(self.folder).recipe())
        text = f"{scores['name']}, step {scores['step']}: {task.headline(scores)}, {task.details(scores)}."
        return Result(scores, text)
