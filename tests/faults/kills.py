"""SIGKILL and other signals, in every phase of a run."""

import os
import signal
import time
from pathlib import Path
from random import Random

from tests.faults.bench import Bench
from tests.faults.checks import check_end, check_finished, check_kept, check_resumes
from tests.faults.fault import Fault
from tests.faults.points import ANYWHERE, BEFORE_TRAINING, ENDING, POINTS, PREPARING, at, kill

_KILLS = [
    *("start-up", *PREPARING, "compiling", "step", "batch of an evaluation", "save: arrays", "save: arrays written"),
    *("save: checksums", "save: syncing", "save: synced, without its name", "save: named, older ones not removed"),
    *("save: removing an older one", "save: an older one half removed", "drawing the curves", "writing summary.json"),
    *("summary.json written", "naming a file", "syncing a file"),
]
_UNHANDLED = {"start-up", "opening the data", *PREPARING, *ENDING, *ANYWHERE}  # perhaps before training or after it
_AT_THE_LAST_SAVE = {"save: removing an older one", "save: an older one half removed"}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def draw_kill(index: int, random: Random, bench: Bench) -> Fault:
    """A kill at a point of the program, each fifth after a random time."""
    if index % 5 == 4:
        return _kill_after(random.uniform(0, bench.seconds), bench)
    point = _KILLS[(index - index // 5) % len(_KILLS)]
    number = random.randint(1, bench.calls[point])

    def check(folder: Path) -> str:
        launch = bench.train(folder, *_words(point), prepare=lambda: at(POINTS[point], number, kill))
        check_end(launch.wait(bench.limit), [-signal.SIGKILL])
        whole = check_kept(bench, folder)
        check_resumes(bench, folder, *_words(point))
        return f"killed; {whole} are whole, resumed to the same bits"

    what = f"SIGKILL: {point}, {number} of {bench.calls[point]}"
    return Fault(what, "no checkpoint lost, resumed to the same bits", check)


def _kill_after(seconds: float, bench: Bench) -> Fault:
    def check(folder: Path) -> str:
        launch = bench.train(folder)
        time.sleep(seconds)
        launch.send(signal.SIGKILL)
        ended = launch.wait(bench.limit)
        check_end(ended, [-signal.SIGKILL, 0])
        whole = check_kept(bench, folder)
        check_resumes(bench, folder)
        return f"{'killed' if ended.status else 'was done'}; {whole} are whole, resumed to the same bits"

    return Fault(f"SIGKILL after {seconds:.2f} s", "no checkpoint lost, resumed to the same bits", check)


def draw_signal(index: int, random: Random, bench: Bench) -> Fault:
    """A signal at any point, each third time two in a row."""
    signals = [_SIGNALS[index % 4], *([random.choice(_SIGNALS)] if index % 3 == 2 else [])]
    point = random.choice(list(POINTS))
    number = random.randint(1, bench.calls[point])

    statuses = _statuses(point, number, signals, bench)

    def send() -> None:
        for one in signals:
            os.kill(os.getpid(), one)

    def check(folder: Path) -> str:
        launch = bench.train(folder, *_words(point), prepare=lambda: at(POINTS[point], number, send))
        ended = launch.wait(bench.limit)
        seen = check_end(ended, statuses)
        whole = check_kept(bench, folder)
        if ended.status == 0:
            check_finished(bench, folder / "run")
        if ended.status == 75:
            assert "saved in run. The same command resumes it." in ended.error, ended.error
            assert int(ended.error.split("step ")[1].split()[0]) == whole[-1], (ended.error, whole)
        check_resumes(bench, folder, *_words(point))
        return f"{seen}; {whole} are whole, resumed to the same bits"

    what = f"{' and '.join(one.name for one in signals)}: {point}, {number} of {bench.calls[point]}"
    expected = f"status {' or '.join(map(str, sorted(statuses)))}, saved; resumed to the same bits"
    return Fault(what, expected, check)


def _statuses(point: str, number: int, signals: list[signal.Signals], bench: Bench) -> set[int]:
    """75, or 0 at the end of a run; outside training, and for a second Ctrl-C, what is usual."""
    statuses = {130 if one == signal.SIGINT else -one for one in signals}
    if point not in _UNHANDLED:
        statuses &= {130} if len(signals) == 2 else set()
    is_late = number > bench.calls[point] / 2 and point not in BEFORE_TRAINING
    return statuses | {75} | ({0} if is_late or point in _AT_THE_LAST_SAVE or point in ANYWHERE else set())


def _words(point: str) -> tuple[str, ...]:
    """Options for a launch that is to pass a point: data of its own, where their preparation is the point."""
    return ("--data.data-dir", "data") if point in PREPARING else ()
