"""The moments of a run at which a fault can be placed: the n-th call of one of its functions."""

import atexit
import functools
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp

from ddf_jax.data.datasets import digits
from ddf_jax.training import checkpoint, evaluate
from ddf_jax.training import train as loop
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.metrics import MetricsLog
from ddf_jax.training.reporting import Reporter
from ddf_jax.training.workdir import RunFolder


class Point(NamedTuple):
    """A call of a function, found under a name of a module or class; `after` is its end, not its start."""

    owner: Any
    name: str
    after: bool = False


PREPARING = {"preparing the data": Point(digits, "encode_png")}
BEFORE_TRAINING = {
    "start-up": Point(loop, "check_same_in_all_processes"),
    "opening the data": Point(loop, "describe"),
    "abstract model": Point(loop, "abstract_state"),
    "creating the folder": Point(RunFolder, "create"),
    "initial variables": Point(loop, "initial_variables"),
    "compiling": Point(loop, "compile_train_step"),
    "compiled": Point(loop, "compile_eval_step", after=True),
    "writing recipe.json": Point(RunFolder, "begin"),
    "opening metrics.jsonl": Point(MetricsLog, "__init__"),
}
TRAINING = {
    "step": Point(Reporter, "steps"),
    "row of metrics": Point(MetricsLog, "write"),
    "batch of an evaluation": Point(evaluate, "global_batch"),
}
SAVING = {
    "save: rows": Point(MetricsLog, "sync"),
    "save: arrays": Point(ocp.Checkpointer, "save"),
    "save: arrays written": Point(ocp.Checkpointer, "save", after=True),
    "save: checksums": Point(checkpoint, "write_checksums"),
    "save: syncing": Point(checkpoint, "sync_tree"),
    "save: synced, without its name": Point(checkpoint, "sync_tree", after=True),
    "save: named, older ones not removed": Point(checkpoint, "sync_folder"),
    "save: removing an older one": Point(shutil, "rmtree"),
    "save: an older one half removed": Point(os, "rmdir"),
    "save: done": Point(Checkpoints, "save", after=True),
}
ENDING = {
    "drawing the curves": Point(loop, "draw_curves"),
    "writing summary.json": Point(RunFolder, "write_summary"),
    "summary.json written": Point(RunFolder, "write_summary", after=True),
}
ANYWHERE = {
    "naming a file": Point(os, "replace"),
    "syncing a file": Point(os, "fsync"),
}
POINTS = PREPARING | BEFORE_TRAINING | TRAINING | SAVING | ENDING | ANYWHERE


def at(point: Point, number: int, act: Callable[[], None]) -> None:
    """Calls `act` at the n-th call of a point in this process, n = 1, 2, …"""
    calls = itertools.count(1)

    def count(*_: Any) -> None:
        if next(calls) == number:
            act()

    _wrap(point, count)


def count_calls(file: Path) -> None:
    """Counts the calls of every point in this process, and writes the counts to a file when it ends."""
    calls = dict.fromkeys(POINTS, 0)

    def count(name: str, *_: Any) -> None:
        calls[name] += 1

    for name, point in POINTS.items():
        _wrap(point, functools.partial(count, name))
    atexit.register(lambda: file.write_text(json.dumps(calls)))


def log_saves(file: Path) -> None:
    """Appends the step of each checkpoint that this process completes to a file."""

    def log(checkpoints: Checkpoints, step: int, *_: Any) -> None:
        with file.open("a") as lines:
            lines.write(f"{step}\n")

    _wrap(POINTS["save: done"], log)


def kill() -> None:
    """Ends this process as a lack of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    """Stops this process until SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def _wrap(point: Point, act: Callable[..., None]) -> None:
    function = getattr(point.owner, point.name)

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if not point.after:
            act(*arguments)
        result = function(*arguments, **options)
        if point.after:
            act(*arguments)
        return result

    setattr(point.owner, point.name, wrapped)
