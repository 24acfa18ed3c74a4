"""Checkpoints: model, optimizer and a small record of everything else, written whole or not at all.

`checkpoints/<step>/` holds the arrays as Orbax writes them (`model/`, `optimizer/`), `record.json`, and the SHA-256 of
each of these files in `checksums.json`. The folder gets its name when all of that is on disk; before, it is
`<step>.partial`. A checkpoint whose files do not have their checksums is skipped. Reading one parses JSON and arrays;
it never runs code.

Saving waits for the disk. The arrays of a ResNet are a few hundred megabytes and an epoch is minutes: a second thread
that copies, writes and fails on its own would save little, and make "written" harder to believe.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from ddf_jax.files import write_json
from ddf_jax.training.errors import RunError
from ddf_jax.training.state import leaf_names

_CHECKSUMS, _RECORD, _ARRAYS = "checksums.json", "record.json", "arrays"
_NONE, _ALL_DAMAGED = -1, -2  # in place of a step


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: the run's `checkpoints/`.
        keep: how many of the newest remain after a save.
        warn: called with one line for each checkpoint that is skipped.
    """

    def __init__(self, directory: Path, *, keep: int = 1, warn: Callable[[str], None] = lambda line: None) -> None:
        self._directory = directory.absolute()
        self._keep = keep
        self._warn = warn

    def newest(self) -> int | None:
        """The step of the newest checkpoint that is whole, or None where there is no checkpoint at all.

        Raises:
            RunError: there are checkpoints, but none is readable.
        """
        found, damaged = self._examine() if jax.process_index() == 0 else (None, {})
        if found is None:
            found = _ALL_DAMAGED if damaged else _NONE
        found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))  # processes must not disagree on the step
        if found == _ALL_DAMAGED:
            details = "; ".join(f"{step}: {problem}" for step, problem in damaged.items())
            raise RunError(
                f"No checkpoint in {self._directory} is readable ({details}). "
                f"Put back a copy of one, or remove the run's folder to start again."
            )
        return None if found == _NONE else found

    def record(self, step: int) -> dict[str, Any]:
        """The record saved with a checkpoint that `newest` found."""
        return json.loads((self._path(step) / _RECORD).read_text())

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
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            return {
                name: checkpointer.restore(self._path(step) / name, args=ocp.args.StandardRestore(tree))
                for name, tree in abstract.items()
            }

    def save(self, step: int, trees: dict[str, Any], record: dict[str, Any]) -> None:
        """Writes named trees of arrays and a JSON record, then removes checkpoints beyond `keep`; for all processes."""
        partial = self._path(step, ".partial")
        is_main = jax.process_index() == 0
        if is_main:
            for abandoned in list(self._directory.glob("*.partial")):
                shutil.rmtree(abandoned)
            partial.mkdir(parents=True)
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            for name, tree in trees.items():
                checkpointer.save(partial / name, args=ocp.args.StandardSave(tree))
        if is_main:
            write_json(partial / _RECORD, record | {_ARRAYS: _array_types(trees)})
            write_json(partial / _CHECKSUMS, _checksums(partial))
            partial.rename(self._path(step))
            for old in sorted(self._steps())[: -self._keep]:
                shutil.rmtree(self._path(old))
        multihost_utils.sync_global_devices("checkpoint")

    def set_aside_after(self, step: int) -> None:
        """Renames what is newer than `step`, which `newest` skipped, to `<step>.unreadable`: a run that goes on from
        `step` will write under these names again."""
        if jax.process_index() == 0:
            for damaged in [other for other in self._steps() if other > step]:
                shutil.rmtree(self._path(damaged, ".unreadable"), ignore_errors=True)
                self._path(damaged).rename(self._path(damaged, ".unreadable"))

    def _examine(self) -> tuple[int | None, dict[int, str]]:
        """The newest step whose files have their checksums, and what is wrong with those that are newer."""
        damaged: dict[int, str] = {}
        for step in sorted(self._steps(), reverse=True):
            problem = _problem(self._path(step))
            if problem is None:
                return step, damaged
            damaged[step] = problem
            self._warn(f"Skipped the unreadable checkpoint {self._path(step)}: {problem}.")
        return None, damaged

    def _steps(self) -> list[int]:
        return [int(path.name) for path in self._directory.glob("*") if path.name.isdigit()]

    def _path(self, step: int, suffix: str = "") -> Path:
        return self._directory / f"{step}{suffix}"


def _array_types(trees: dict[str, Any]) -> dict[str, str]:
    """`{"model.conv1.kernel": "float32[3, 3, 1, 16]", …}`."""
    leaves = jax.tree.leaves(trees)
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in zip(leaf_names(trees), leaves, strict=True)}


def _checksums(directory: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and path.name != _CHECKSUMS):
        with path.open("rb") as file:
            sums[path.relative_to(directory).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _problem(directory: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    try:
        expected, found = json.loads((directory / _CHECKSUMS).read_text()), _checksums(directory)
    except FileNotFoundError:
        return f"{_CHECKSUMS} is missing"
    except (OSError, ValueError) as error:
        return f"{_CHECKSUMS} cannot be read ({error})"
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            return f"{name} " + ("is missing" if name not in found else "is not the file that was saved")
    return None
