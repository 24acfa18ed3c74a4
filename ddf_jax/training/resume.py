"""What a run resumes from: its state after a step, saved to a checkpoint and restored from one."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError, one_line
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.recipe import Recipe, recipe_to_json
from ddf_jax.training.step import Variables
from ddf_jax.training.tasks import Scores
from ddf_jax.training.workdir import check_same_recipe


@dataclasses.dataclass
class RunState:
    """A run after `step` steps."""

    step: int
    variables: Variables
    data: dict[str, Any]  # the state of the data's iterator
    evaluation: Scores | None = None  # the newest, made after `evaluated_step` steps
    evaluated_step: int | None = None
    saved_step: int | None = None  # of the newest checkpoint


def save_run(
    checkpoints: Checkpoints, state: RunState, recipe: Recipe, info: DataInfo, times: dict[str, float]
) -> None:
    """Writes a checkpoint, unless the newest is of this very step.

    Args:
        checkpoints: the run's.
        state: the run now.
        recipe: the run's recipe.
        info: the run's data.
        times: `seconds` and `training_seconds` so far.

    Raises:
        RunError: it cannot be written; older checkpoints stay.
    """
    if state.saved_step == state.step:
        return
    record = {
        "recipe": json.loads(recipe_to_json(recipe)),
        "data_info": dataclasses.asdict(info),
        "data": state.data,
        "evaluation": state.evaluation,
        "evaluated_step": state.evaluated_step,
        **times,
    }
    try:
        checkpoints.save(state.step, state.variables, record)
    except Exception as error:  # Orbax and TensorStore have many
        kept = "There is none before it." if state.saved_step is None else f"That of step {state.saved_step} stays."
        raise RunError(
            f"Cannot save the checkpoint of step {state.step} in {checkpoints.directory}: {one_line(error)}. {kept} "
            f"Make room or mend the file system; the same command resumes the run."
        ) from error
    state.saved_step = state.step


def restore_run(
    checkpoints: Checkpoints, workdir: Path, recipe: Recipe, info: DataInfo, abstract: Variables
) -> tuple[RunState, dict[str, float]] | None:
    """The newest readable checkpoint as the run's state and its `times`, or None for a run that has none yet.

    Args:
        checkpoints: the run's.
        workdir: the run's folder.
        recipe: the recipe that resumes the run.
        info: the data that are there now.
        abstract: shapes, dtypes and shardings of the state's arrays.

    Raises:
        RunError: the checkpoint is of another recipe, of other data or of an earlier version, or none is readable.
    """
    step = checkpoints.newest()
    if step is None:
        return None
    record = checkpoints.record(step)
    check_same_recipe(workdir, checkpoints.recipe(step), recipe)
    if (saved := checkpoints.data_info(step)) != info:
        raise RunError(
            f"{workdir} was trained on {saved}, but the data now are {info}. "
            f"Put the data back, or choose another --workdir."
        )
    variables = checkpoints.load(step, abstract)
    checkpoints.set_aside_after(step)
    state = RunState(
        step=step,
        variables=variables,
        data=record["data"],
        evaluation=record["evaluation"],
        evaluated_step=record["evaluated_step"],
        saved_step=step,
    )
    return state, {name: record[name] for name in ("seconds", "training_seconds")}
