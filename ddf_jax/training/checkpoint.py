"""Checkpoints: model, optimizer and a small record of everything else, written whole or not at all.

`checkpoints/<step>/` holds the arrays as Orbax writes them (`model/`, `optimizer/`), `record.json`, and the SHA-256 of
each of these files in `checksums.json`. The folder gets its name when all of that is on disk, every file and folder
synced; before, it is `<step>.partial`. Older checkpoints are removed when the name is on disk too, and lose theirs
first: a folder with a number is whole or was damaged later. A checkpoint whose files do not have their checksums is
skipped. Reading one parses JSON and arrays; it never runs code.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import DiskError, RunError, one_line
from ddf_jax.files import damage, make_folder, sync_folder, sync_tree, unused, write_checksums, write_json
from ddf_jax.training.leaves import leaf_names
from ddf_jax.training.recipe import Recipe, recipe_from_json
from ddf_jax.training.retention import Retention, Score, from_best

_log = logging.getLogger(__name__)

_RECORD, _ARRAYS = "record.json", "arrays"
_UNREADABLE, _UNDONE = "unreadable", "undone"
_NONE, _ALL_DAMAGED, _CANNOT_READ = -1, -2, -3  # in place of a step


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: the run's `checkpoints/`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()

    def newest(self) -> int | None:
        """The step of the newest checkpoint that is whole, or None where there is no checkpoint at all.

        Each newer one that is not is logged as a warning.

        Raises:
            RunError: there are checkpoints, but none is readable, or the disk fails.
        """
        found, damaged, failure = None, {}, None
        if jax.process_index() == 0:
            try:
                found, damaged = self._examine()
            except OSError as error:
                failure = error
        if found is None:
            found = _CANNOT_READ if failure else _ALL_DAMAGED if damaged else _NONE
        found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))  # processes must not disagree on the step
        if found == _CANNOT_READ:
            raise DiskError(
                f"The checkpoints in {self.directory} cannot be read now ({failure or 'by the first process'}). "
                f"None was changed: try again when the file system answers."
            )
        if found == _ALL_DAMAGED:
            details = "; ".join(f"{step}: {problem}" for step, problem in damaged.items())
            raise RunError(
                f"No checkpoint in {self.directory} is readable ({details}). "
                f"Put back a copy of one, or remove the run's folder to start again."
            )
        return None if found == _NONE else found

    def readable(self, step: int) -> int:
        """`step`, whose checkpoint is whole.

        Raises:
            RunError: there is no such checkpoint, or it is not readable.
        """
        if step not in self._steps():
            raise RunError(f"There is no checkpoint {step} in {self.directory}; there are {sorted(self._steps())}.")
        try:
            problem = damage(self._path(step))
        except OSError as error:
            raise DiskError(f"The checkpoint {self._path(step)} cannot be read now ({error}). Try again.") from None
        if problem:
            raise RunError(f"The checkpoint {self._path(step)} is not readable: {problem}. Take another.")
        return step

    def best(self, score: Score) -> int:
        """The step of the whole checkpoint with the best score; of equals the latest.

        Raises:
            RunError: no checkpoint was evaluated at its own step, or none of those is readable.
        """
        for step in from_best(self._scores(score), score):
            with contextlib.suppress(RunError):
                return self.readable(step)
        raise RunError(
            f"No readable checkpoint in {self.directory} was evaluated at its own step, so none is best by "
            f"{score.name}; there are {sorted(self._steps())}. Choose one of these, or the newest."
        )

    def was_removed(self, step: int) -> bool:
        """Whether a checkpoint is gone, as after a later save of the run's own process."""
        return not self._path(step).exists()

    def record(self, step: int) -> dict[str, Any]:
        """The record saved with a checkpoint that `newest` found."""
        return json.loads((self._path(step) / _RECORD).read_text())

    def recipe(self, step: int) -> Recipe:
        """The recipe of the launch that saved a checkpoint that `newest` found.

        Raises:
            RunError: it is of an earlier version.
        """
        try:
            return recipe_from_json(json.dumps(self.record(step)["recipe"]))
        except RunError as error:
            raise RunError(f"Training cannot resume from the checkpoint {self._path(step)}: {error}") from None

    def data_info(self, step: int) -> DataInfo:
        """The data of the run, from the record of a checkpoint that `newest` found."""
        saved = self.record(step)["data_info"]
        fields: dict[str, Any] = {
            field.name: tuple(value) if isinstance(value := saved[field.name], list) else value
            for field in dataclasses.fields(DataInfo)
            if field.name in saved or field.default is dataclasses.MISSING  # records of an earlier version lack some
        }
        return DataInfo(**fields)

    def load(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """Arrays of a checkpoint that `newest` found, on the devices that `abstract` names, however many wrote them.

        Args:
            abstract: some of the named trees that were saved, each leaf a `jax.ShapeDtypeStruct` with its sharding.

        Raises:
            RunError: the checkpoint holds other arrays.
        """
        saved, expected = self.record(step)[_ARRAYS], _array_types(abstract)
        saved = {name: kind for name, kind in saved.items() if name.split(".")[0] in abstract}
        differing = [name for name in saved | expected if saved.get(name) != expected.get(name)]
        if differing:
            name = differing[0]
            raise RunError(
                f"The checkpoint {self._path(step)} is of another model: `{name}` is {saved.get(name, 'absent')} there "
                f"and {expected.get(name, 'absent')} here ({len(differing)} arrays differ)."
            )
        _print_no_followers()
        try:
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
                return {
                    name: checkpointer.restore(self._path(step) / name, args=ocp.args.StandardRestore(tree))
                    for name, tree in abstract.items()
                }
        except Exception as error:  # Orbax and TensorStore have many
            raise RunError(f"Cannot read the checkpoint {self._path(step)}: {one_line(error)}. Try again.") from error

    def save(
        self, step: int, trees: dict[str, Any], record: dict[str, Any], retention: Retention | None = None
    ) -> None:
        """Writes named trees of arrays and a JSON record, then removes what is not to be kept; for all processes."""
        partial = self._path(step, ".partial")
        is_main = jax.process_index() == 0
        if is_main:
            make_folder(self.directory)
            self._remove(*self._abandoned())
            partial.mkdir()
        _print_no_followers()
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            for name, tree in jax.tree.map(_one_copy, trees).items():
                checkpointer.save(partial / name, args=ocp.args.StandardSave(tree))
        if is_main:
            write_json(partial / _RECORD, record | {_ARRAYS: _array_types(trees)})
            write_checksums(partial)
            sync_tree(partial)
            partial.rename(self._path(step))
            sync_folder(self.directory)
            retention = retention or Retention()
            scores = self._scores(retention.score)
            self._remove(*(self._path(old) for old in sorted(scores.keys() - retention.kept(scores))))
        multihost_utils.sync_global_devices("checkpoint")

    def set_aside_after(self, step: int) -> None:
        """Renames the checkpoints newer than `step`: a run resumed from there will write under their names again.

        One that is whole, from which the run goes back, becomes `<step>.undone`, any other `<step>.unreadable`. What a
        killed launch half wrote or half removed goes.
        """
        if jax.process_index() == 0:
            self._remove(*self._abandoned())
            for newer in sorted(other for other in self._steps() if other > step):
                kind = _UNREADABLE if damage(self._path(newer)) else _UNDONE
                self._path(newer).rename(unused(self._path(newer, f".{kind}")))
            sync_folder(self.directory)

    def _examine(self) -> tuple[int | None, dict[int, str]]:
        """The newest step whose files have their checksums, and what is wrong with those that are newer."""
        damaged: dict[int, str] = {}
        for step in sorted(self._steps(), reverse=True):
            problem = damage(self._path(step))
            if problem is None:
                return step, damaged
            if self.was_removed(step):  # by a launch that saves while this one reads: there are newer ones
                return self._examine()
            damaged[step] = problem
            _log.warning("Skipped the unreadable checkpoint %s: %s.", self._path(step), problem)
        return None, damaged

    def _scores(self, score: Score | None) -> dict[int, float | None]:
        """The score of every checkpoint, None where it was not evaluated at its own step or cannot be read."""
        return {step: score and self._score(step, score.name) for step in self._steps()}

    def _score(self, step: int, name: str) -> float | None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            record = self.record(step)
            if record["evaluated_step"] == step:
                return record["evaluation"].get(name)
        return None

    def _abandoned(self) -> list[Path]:
        return [*self.directory.glob("*.partial"), *self.directory.glob("*.removed")]

    def _remove(self, *folders: Path) -> None:
        """Removes folders; each loses its name first. One that stays is tried again by the next save."""
        for folder in folders:
            try:
                shutil.rmtree(folder.rename(folder.with_suffix(".removed")))
            except OSError as error:
                _log.warning("Cannot remove %s: %s.", folder, one_line(error))

    def _steps(self) -> list[int]:
        return [int(path.name) for path in self.directory.glob("*") if path.name.isdigit()]

    def _path(self, step: int, suffix: str = "") -> Path:
        return self.directory / f"{step}{suffix}"


@functools.cache
def _print_no_followers() -> None:
    """From now on nothing is printed of what follows an error of Orbax, which is raised, often later and in threads:
    Orbax logs it with a traceback and leaves coroutines, TensorStore reports it to a loop that is closed or to nobody.
    """
    print_others = sys.unraisablehook

    def is_follower(text: str) -> bool:
        return text == "Event loop is closed" or any(word in text for word in ("tensorstore", "TensorStore", "OCDBT"))

    def hook(unraisable: Any) -> None:
        if not is_follower(str(unraisable.exc_value)):
            print_others(unraisable)

    sys.unraisablehook = hook
    warnings.filterwarnings("ignore", "coroutine '_read_array.* was never awaited", RuntimeWarning)
    logging.getLogger("asyncio").addFilter(lambda record: not is_follower(record.getMessage()))
    logging.getLogger("absl").addFilter(lambda record: record.levelno < logging.ERROR or "orbax" not in record.pathname)


def _one_copy(leaf: Any) -> Any:
    """The array on one device where each device holds a copy.

    Orbax writes a slice of a replicated array from each device and compiles a program for each shape.
    """
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated and leaf.is_fully_addressable:
        return leaf.addressable_data(0)
    return leaf


def _array_types(trees: dict[str, Any]) -> dict[str, str]:
    """`{"model.conv1.kernel": "float32[3, 3, 1, 16]", …}`."""
    leaves = jax.tree.leaves(trees)
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in zip(leaf_names(trees), leaves, strict=True)}
