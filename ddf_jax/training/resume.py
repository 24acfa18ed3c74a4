"""What a run resumes from: its state after a step, saved to a checkpoint and restored from one."""

import concurrent.futures
import dataclasses
import datetime
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ddf_jax.data.fingerprint import Fingerprint, difference
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import DiskError, RunError, one_line
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.metrics import keep_metrics
from ddf_jax.training.recipe import Recipe, changed_fields, recipe_to_json
from ddf_jax.training.retention import Retention
from ddf_jax.training.state import NODES, Variables, complete
from ddf_jax.training.tasks import Scores

_STEP_UNITS = ("batch_size",)  # fields that no run can change on the way: its steps and its data are counted in batches

_OF_THE_MODEL = (
    "num_classes",
    "channels",
    "image_size",
    "eval_shape",
)  # facts about the data that its arrays depend on


@dataclasses.dataclass
class RunState:
    """A run after `step` steps."""

    step: int
    variables: Variables
    data: dict[str, Any]  # the state of the data's iterator
    evaluation: Scores | None = None  # the newest, made after `evaluated_step` steps
    evaluated_step: int | None = None
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # what was not as the recipe alone says


class RunFacts(NamedTuple):
    """What a checkpoint states about its launch, in addition to the state."""

    recipe: Recipe
    info: DataInfo
    fingerprint: Fingerprint  # of the data
    recipe_file: dict[str, str] | None = None  # `recipe_file_record` of the file that defines the recipe


class Saver:
    """Writes the checkpoints of one launch.

    With one process the arrays are copied, and the disk is left to a thread: on a ResNet-50's state of 205 MB the loop
    waits a tenth of a second instead of three. With several processes it waits for the disk, and for the others.

    Args:
        checkpoints: the run's.
        retention: which of them remain.
        facts: about this launch.
        saved_step: of the checkpoint that the launch resumes from.
    """

    def __init__(self, checkpoints: Checkpoints, retention: Retention, facts: RunFacts, saved_step: int | None) -> None:
        self._checkpoints, self._retention, self._facts = checkpoints, retention, facts
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._writing: tuple[int, concurrent.futures.Future[None]] | None = None
        self.saved_step = saved_step
        """Of the newest checkpoint that is on the disk, as far as `check` or `wait` has seen."""

    def save(self, state: RunState, times: dict[str, float]) -> None:
        """Begins to write a checkpoint, unless there is one of this very step; for all processes.

        Args:
            state: the run now.
            times: `seconds` and `training_seconds` so far.

        Raises:
            DiskError: this one or the one before cannot be written; older ones stay.
        """
        self.wait()
        if self.saved_step == state.step:
            return
        alone = jax.process_count() == 1
        variables = jax.tree.map(_copy_to_host, state.variables) if alone else state.variables
        facts = {
            "recipe": json.loads(recipe_to_json(self._facts.recipe)),
            "recipe_file": self._facts.recipe_file,
            "data_info": dataclasses.asdict(self._facts.info),
            "fingerprint": self._facts.fingerprint,
        }
        progress = {
            "data": state.data,
            "evaluation": state.evaluation,
            "evaluated_step": state.evaluated_step,
            "history": list(state.history),
        }
        record = facts | progress | times
        self._writing = (
            state.step,
            self._thread.submit(self._checkpoints.save, state.step, variables, record, self._retention),
        )
        if not alone:
            self.wait()

    def check(self) -> None:
        """Raises what `wait` would, if writing has ended; does not wait."""
        if self._writing is not None and self._writing[1].done():
            self.wait()

    def wait(self) -> None:
        """Waits until the last checkpoint is on the disk.

        Raises:
            DiskError: it cannot be written; older ones stay.
        """
        if self._writing is None:
            return
        (step, written), self._writing = self._writing, None
        try:
            written.result()
        except Exception as error:  # Orbax and TensorStore have many
            kept = "There is none before it." if self.saved_step is None else f"That of step {self.saved_step} stays."
            raise DiskError(
                f"Cannot save the checkpoint of step {step} in {self._checkpoints.directory}: {one_line(error)}. "
                f"{kept} Make room or mend the file system; the same command resumes the run."
            ) from error
        self.saved_step = step

    def close(self) -> None:
        """Waits for the disk; a failure that nobody has asked for is lost."""
        self._thread.shutdown()


class Start(NamedTuple):
    """Where a launch resumes: at a checkpoint, under which changes."""

    step: int
    newest: int  # where it is greater, what lies between is undone
    by_request: bool  # the step was asked for
    changes: list[str]  # `field: old -> new` of the recipe


def find_start(
    checkpoints: Checkpoints, workdir: Path, recipe: Recipe, *, from_step: int | None, allow_change: Collection[str]
) -> Start | None:
    """The checkpoint that a launch resumes from, or None for a run that has none yet.

    A launch that goes back to a step and is then repeated resumes from where it stopped.

    Args:
        checkpoints: the run's.
        workdir: the run's folder.
        recipe: of the launch.
        from_step: the checkpoint to go back to; default: the newest readable one.
        allow_change: fields of the recipe that may differ from the checkpoint's.

    Raises:
        RunError: another field differs, there is no such checkpoint, or none is readable.
    """
    newest = checkpoints.newest()
    if newest is None:
        if from_step is not None:
            raise RunError(f"There is no checkpoint in {checkpoints.directory} to go back to, of step {from_step}.")
        return None
    by_request = from_step is not None and not _has_gone_back(checkpoints, newest, from_step, recipe)
    step = checkpoints.readable(from_step) if from_step is not None and by_request else newest
    changes = changed_fields(checkpoints.recipe(step), recipe)
    changed = {change.partition(":")[0] for change in changes}
    if not changed <= set(allow_change):
        names = " ".join(sorted(changed))
        raise RunError(
            f"{workdir} holds a run of another recipe ({'; '.join(changes)}). Set the fields back to resume it, choose "
            f"another --workdir, or resume under the new recipe: --allow-change {names}"
        )
    if fixed := changed.intersection(_STEP_UNITS):
        raise RunError(
            f"`{fixed.pop()}` cannot change within a run, whose steps are batches. Start another run from its "
            f"weights: --init-from {workdir} --init-step {step} --workdir DIR"
        )
    return Start(step, newest, by_request, changes)


def _has_gone_back(checkpoints: Checkpoints, newest: int, from_step: int, recipe: Recipe) -> bool:
    """Whether the newest checkpoint comes from an earlier launch with the same request."""
    requests = [event["step"] for event in checkpoints.record(newest).get("history", []) if event.get("by_request")]
    return requests[-1:] == [from_step] and not changed_fields(checkpoints.recipe(newest), recipe)


def restore_run(
    checkpoints: Checkpoints, workdir: Path, start: Start, facts: RunFacts, abstract: Variables
) -> tuple[RunState, dict[str, float]]:
    """The run's state and its `times` at a start. What was done after it is kept under other names.

    Args:
        checkpoints: the run's.
        workdir: the run's folder.
        start: from `find_start`.
        facts: about this launch.
        abstract: shapes, dtypes and shardings of the state's arrays.

    Raises:
        RunError: the checkpoint is of other data or of another model.
    """
    step, record = start.step, checkpoints.record(start.step)
    changed_data = _check_data(workdir, checkpoints.data_info(step), record.get("fingerprint"), facts)
    # What a changed recipe adds is as before the first step, what it leaves out is not read.
    saved = {name.partition(".")[0] for name in record["arrays"]}
    kept = {name: tree for name, tree in abstract.items() if name in NODES or name in saved}
    variables = complete(facts.recipe, checkpoints.load(step, kept))
    variables = jax.tree.map(lambda leaf, like: jax.device_put(leaf, like.sharding), variables, abstract)
    multihost_utils.sync_global_devices("restored")  # nobody reads a newer one any more
    if jax.process_index() == 0:
        if step < start.newest:
            keep_metrics(workdir)
        checkpoints.set_aside_after(step)
    state = RunState(
        step=step,
        variables=variables,
        data=record["data"],
        evaluation=record["evaluation"],
        evaluated_step=record["evaluated_step"],
        history=record.get("history", []),
    )
    if start.by_request or start.changes or changed_data:
        state.history.append(event(step, by_request=start.by_request, changes=start.changes, data=changed_data))
    return state, {name: record[name] for name in ("seconds", "training_seconds")}


def _check_data(workdir: Path, saved: DataInfo, fingerprint: Fingerprint | None, facts: RunFacts) -> str | None:
    """How the data differ from those of a checkpoint, where that is allowed; a run of an earlier version has no
    fingerprint of them."""
    now = facts.info
    sizes = f"they were {saved} and are {now}" if saved != now else None
    problem = (difference(fingerprint, facts.fingerprint) if fingerprint else None) or sizes
    if problem is None:
        return None
    if any(getattr(saved, field) != getattr(now, field) for field in _OF_THE_MODEL):
        raise RunError(
            f"{workdir} was trained on other data: {sizes}. Its model cannot take these: put the data back, or start "
            f"another run from its weights: --init-from {workdir} --init-head fresh --workdir DIR"
        )
    if not facts.recipe.data.allow_changed:
        raise RunError(
            f"{workdir} was trained on other data: {problem}. Put the data back, choose another --workdir, or resume "
            "with these: --data.allow-changed"
        )
    return problem


def event(step: int, **facts: Any) -> dict[str, Any]:
    """An entry of a run's history."""
    return {"time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "step": step, **facts}


def _copy_to_host(leaf: jax.Array) -> Any:
    """A copy that outlives the array, whose memory the next step takes."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf.copy()  # NumPy has no such type
    return np.array(leaf)
