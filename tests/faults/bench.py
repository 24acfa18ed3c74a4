"""The runs without faults that the others are compared with or begin from."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ddf_jax.data.sources import describe
from ddf_jax.files import damage
from tests.ddf_jax.training.launch import TINY
from tests.ddf_jax.training.processes import metrics, saved_bits
from tests.faults.launches import GRACE, Ended, Launch, in_child
from tests.faults.points import POINTS, PREPARING, at, count_calls, log_saves
from tests.faults.shim import Shim

RECIPE = Path(__file__).with_name("recipe.py")
STEPS, KEEP = 20, 3
_HALF = 18  # reports of steps: 15 or so, and three at pauses
EVERY_STEP = ("--checkpoint-every", "0.045")  # of an epoch of 22.5 steps

Bits = dict[str, str]
"""SHA-256 of each array of a checkpoint by its name."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """Runs without faults.

    Args:
        folder: holds them: `finished/run`, and `half/run`, stopped after the third checkpoint.
        bits: of every step.
        rows: of metrics, without what depends on the clock.
        calls: how often an unbroken run passes each point.
        shim: makes operations on files fail.
        operations: how often an unbroken run opens, writes, … below its folder.
        seconds: that the slowest of them took.
    """

    folder: Path
    bits: dict[int, Bits]
    rows: list[dict[str, Any]]
    calls: dict[str, int]
    shim: Shim
    operations: dict[str, int]
    seconds: float

    @property
    def limit(self) -> float:
        """Seconds in which a launch ends: those of training on a busy machine, and the grace."""
        return 4 * self.seconds + GRACE

    def train(
        self, folder: Path, *words: str, prepare: Callable[[], None] = lambda: None, **environment: str
    ) -> Launch:
        """Starts or resumes `folder/run`."""
        return Launch(folder, train_words(self.folder, *words), _logging(folder, prepare), environment)

    def copy(self, name: str, folder: Path) -> Path:
        """A copy of the run `name` in `folder`."""
        return Path(shutil.copytree(self.folder / name / "run", folder / "run"))


def train_words(bench: Path, *words: str) -> list[str]:
    """`ddf train …` of the tiny recipe in the folder `run`."""
    return ["train", str(RECIPE), "--data.data-dir", str(bench / "data"), "--workdir", "run", *words]


def prepare_bench(folder: Path, shim: Shim) -> Bench:
    """Prepares the data, and trains what the faults need."""
    for name in ("finished", "every", "half"):
        (folder / name).mkdir()
    images = in_child(_prepare_data, folder / "data")
    start = time.monotonic()

    def counting() -> None:
        count_calls(folder / "calls.json")
        shim.count(folder / "finished" / "run", folder / "operations.json")

    def launch(name: str, *words: str, prepare: Callable[[], None] = lambda: None) -> Launch:
        return Launch(folder / name, train_words(folder, *words), _logging(folder / name, prepare))

    _expect(launch("finished", prepare=counting).wait(600), 0)
    seconds = time.monotonic() - start
    half = launch("half", prepare=lambda: at(POINTS["step"], _HALF, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    every = launch("every", *EVERY_STEP, "--keep-checkpoints", str(STEPS))
    _expect(half.wait(600), 75)
    _expect(every.wait(600), 0)
    return Bench(
        folder,
        in_child(array_hashes, folder / "every" / "run", range(1, STEPS + 1)),
        metrics(folder / "finished" / "run"),
        json.loads((folder / "calls.json").read_text()) | dict.fromkeys(PREPARING, images),
        shim,
        json.loads((folder / "operations.json").read_text()),
        seconds,
    )


def array_hashes(workdir: Path, steps: Sequence[int]) -> dict[int, Bits]:
    """The bits of some checkpoints. It starts JAX."""
    return {
        step: {name: hashlib.sha256(data).hexdigest() for name, data in saved_bits(workdir, step).items()}
        for step in steps
    }


def whole_steps(workdir: Path) -> list[int]:
    """The checkpoints with a name whose files have their checksums, oldest first."""
    folders = [path for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    return sorted(int(path.name) for path in folders if damage(path) is None)


def completed_saves(folder: Path) -> list[int]:
    """The steps whose save completed in the launches in `folder`."""
    file = folder / "saves"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def _prepare_data(folder: Path) -> int:
    """The number of images. Their preparation would add to the calls of an unbroken run."""
    info = describe(dataclasses.replace(TINY.data, data_dir=folder), TINY.task.examples())
    return info.train_size + info.eval_size


def _logging(folder: Path, prepare: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        log_saves(folder / "saves")
        prepare()

    return both


def _expect(ended: Ended, status: int) -> None:
    assert ended.status == status, ended
