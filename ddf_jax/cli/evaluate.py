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

        initialize_processes()
        scores = evaluate(self.folder)
        loss = scores["test_loss"]  # None where it is not finite
        text = (
            f"{scores['name']}, step {scores['step']}: test accuracy {scores['test_accuracy']:.2%}, top-5 "
            f"{scores['test_top5_accuracy']:.2%}, loss {'not finite' if loss is None else f'{loss:.4f}'} on "
            f"{scores['test_examples']} examples."
        )
        return Result(scores, text)
