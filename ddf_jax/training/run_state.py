"""What a run is between two steps, and how a checkpoint keeps it."""

import dataclasses
import json
from typing import Any

from ddf_jax.data.sources import DataInfo
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.clock import Clock
from ddf_jax.training.errors import RunError
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.recipe_json import recipe_from_json, recipe_to_json
from ddf_jax.training.run_folder import RunFolder, check_same_recipe
from ddf_jax.training.state import Variables
from ddf_jax.training.tasks.task import Scores
from ddf_jax.training.writers import say


@dataclasses.dataclass
class RunState:
    """A run after `step` steps."""

    step: int
    variables: Variables
    data: dict[str, Any]  # the state of the data's iterator
    evaluation: Scores | None = None  # the newest, made after `evaluated_step` steps
    evaluated_step: int | None = None
    saved_step: int | None = None  # of the newest checkpoint


class RunCheckpoints:
    """The checkpoints of one run of one recipe."""

    def __init__(self, folder: RunFolder, recipe: Recipe, info: DataInfo) -> None:
        self._files = Checkpoints(folder.checkpoints, keep=recipe.keep_checkpoints, warn=say)
        self._folder, self._recipe, self._info = folder, recipe, info

    def save(self, state: RunState, clock: Clock) -> None:
        """Writes a checkpoint, unless the newest is of this very step."""
        if state.saved_step == state.step:
            return
        record = {
            "recipe": json.loads(recipe_to_json(self._recipe)),
            "data_info": dataclasses.asdict(self._info),
            "data": state.data,
            "evaluation": state.evaluation,
            "evaluated_step": state.evaluated_step,
            "seconds": clock.seconds,
            "training_seconds": clock.training_seconds,
        }
        self._files.save(state.step, state.variables, record)
        state.saved_step = state.step

    def restore(self, abstract: Variables, clock: Clock) -> RunState | None:
        """The state that the newest readable checkpoint holds, or None for a run that has none yet.

        Args:
            abstract: shapes, dtypes and shardings of the state's arrays.
            clock: goes on from the checkpoint's time.

        Raises:
            RunError: the checkpoint is of another recipe or of other data, or none is readable.
        """
        step = self._files.newest()
        if step is None:
            return None
        record = self._files.record(step)
        check_same_recipe(self._folder.path, recipe_from_json(json.dumps(record["recipe"])), self._recipe)
        if data_info(record) != self._info:
            raise RunError(
                f"{self._folder.path} was trained on {data_info(record)}, but the data now are {self._info}. "
                f"Put the data back, or choose another --workdir."
            )
        variables = self._files.load(step, abstract)
        self._files.set_aside_after(step)
        clock.go_on_from(record["seconds"], record["training_seconds"])
        return RunState(
            step=step,
            variables=variables,
            data=record["data"],
            evaluation=record["evaluation"],
            evaluated_step=record["evaluated_step"],
            saved_step=step,
        )


def data_info(record: dict[str, Any]) -> DataInfo:
    """What a run's data were, from a checkpoint's record."""
    saved = record["data_info"].items()
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in saved}
    return DataInfo(**fields)
