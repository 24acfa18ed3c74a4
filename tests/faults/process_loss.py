"""One of two processes of a run is killed."""

import dataclasses
import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.ddf_jax.training.processes import metrics
from tests.faults.bench import EVERY_STEP, STEPS, Bench, array_hashes
from tests.faults.checks import check_end, check_finished, check_kept
from tests.faults.fault import Fault
from tests.faults.launches import GRACE, Launch, ended_at_exit, in_child
from tests.faults.points import POINTS, at, kill

_POINTS = ("compiling", "step", "batch of an evaluation", "save: arrays", "save: arrays written")


def prepare_pairs(bench: Bench) -> None:
    """A run of two processes without faults, and its bits and rows."""
    folder = bench.folder / "pair"
    folder.mkdir()
    pair = _start_pair(bench, folder, {}, *EVERY_STEP, "--keep-checkpoints", str(STEPS))
    with ended_at_exit(*pair):
        for launch in pair:
            check_end(launch.wait(2 * bench.limit), [0])
    bits = in_child(array_hashes, folder / "run", range(1, STEPS + 1))
    (folder / "bits.json").write_text(json.dumps(bits))


def draw_loss(index: int, random: Random, bench: Bench) -> Fault:
    """A process is killed at a point of the program."""
    victim, point = index % 2, random.choice(_POINTS)
    number = random.randint(1, bench.calls[point])

    def check(folder: Path) -> str:
        expected = _of_pair(bench)
        pair = _start_pair(bench, folder, {victim: lambda: at(POINTS[point], number, kill)})
        with ended_at_exit(*pair):
            check_end(pair[victim].wait(2 * bench.limit), [-signal.SIGKILL])
            start = time.monotonic()
            survivor = pair[1 - victim].wait(GRACE)
            seconds = time.monotonic() - start
        seen = check_end(survivor, [75])
        check_kept(expected, folder)
        again = _start_pair(bench, folder, {})
        with ended_at_exit(*again):
            for launch in again:
                check_end(launch.wait(2 * bench.limit), [0])
        check_finished(expected, folder / "run")
        return f"the other: {seen} after {seconds:.1f} s; resumed to the same bits"

    what = f"SIGKILL of process {victim} of 2: {point}, {number} of {bench.calls[point]}"
    return Fault(what, "the other ends within 30 s, status 75, one line; resumed to the same bits", check)


def _of_pair(bench: Bench) -> Bench:
    folder = bench.folder / "pair"
    bits = {int(step): names for step, names in json.loads((folder / "bits.json").read_text()).items()}
    return dataclasses.replace(bench, bits=bits, rows=metrics(folder / "run"))


def _start_pair(bench: Bench, folder: Path, prepare: dict[int, Callable[[], None]], *words: str) -> list[Launch]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return [
        bench.train(
            folder,
            *words,
            prepare=prepare.get(index, lambda: None),
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]
