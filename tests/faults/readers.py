"""Reading a run while it trains, saves after every step and keeps one checkpoint."""

import os
import signal
import time
from pathlib import Path
from random import Random

import numpy as np

from ddf_jax.training.evaluate import evaluate
from ddf_jax.training.run import load_run, predict
from tests.faults.bench import EVERY_STEP, Bench
from tests.faults.checks import check_end
from tests.faults.fault import Fault
from tests.faults.launches import Launch, ended_at_exit, in_child

_READS = 50  # of each of four faults
_COMMANDS = 5


def draw_reader(index: int, random: Random, bench: Bench) -> Fault:
    """A process that loads the run again and again, with predictions in between, or `ddf evaluate` some times."""
    is_command, predicts = index % 5 == 4, index % 5 == 3
    delay = random.uniform(0, 0.1)

    def check(folder: Path) -> str:
        workdir = folder / "run"
        trainer = bench.train(folder, *EVERY_STEP, "--keep-checkpoints", "1", "--epochs", "100")
        with ended_at_exit(trainer):
            _wait_for_checkpoint(workdir, bench.limit)
            if is_command:
                for _ in range(_COMMANDS):
                    check_end(Launch(folder, ["evaluate", "run"]).wait(bench.limit), [0])
                seen = f"{_COMMANDS} evaluations"
            else:
                steps = in_child(read, workdir, _READS, delay, predicts, folder / "errors", limit=400)
                assert not (errors := (folder / "errors").read_text()), errors[-500:]
                assert steps == sorted(steps), f"an older checkpoint after a newer one: {steps}"
                seen = f"{len(steps)} reads of {len(set(steps))} checkpoints"
            trainer.send(signal.SIGTERM)
            check_end(trainer.wait(bench.limit), [75])
        return f"{seen}, none failed"

    what = "`ddf evaluate`" if is_command else "`load_run`, `predict`, `evaluate`" if predicts else "`load_run`"
    return Fault(f"{what} again and again while the run saves after every step", "no read fails", check)


def read(workdir: Path, count: int, delay: float, predicts: bool, errors: Path) -> list[int]:
    """Loads a run so many times. Returns the steps that were read; what is printed as an error goes to a file."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    steps, image = [], np.zeros((1, 8, 8), np.uint8)
    for number in range(count):
        run = load_run(workdir)
        steps.append(run.step)
        if predicts and number % 10 == 0:
            assert np.isfinite(predict(run, image)).all()
            assert evaluate(run)["test_examples"] == 360
        time.sleep(delay)
    return steps


def _wait_for_checkpoint(workdir: Path, limit: float) -> None:
    end = time.monotonic() + limit
    while not any(path.name.isdigit() for path in workdir.glob("checkpoints/*")):
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.1)
