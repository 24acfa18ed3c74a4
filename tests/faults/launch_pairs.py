"""Two launches in one folder."""

import signal
import time
from pathlib import Path
from random import Random

from tests.faults.bench import Bench
from tests.faults.checks import check_end, check_finished, check_kept, check_resumes
from tests.faults.fault import Fault
from tests.faults.launches import GRACE, Ended, ended_at_exit
from tests.faults.points import POINTS, at, stop

_STOPS = ("step", "save: arrays written", "save: named, older ones not removed", "batch of an evaluation")


def draw_pair(index: int, random: Random, bench: Bench) -> Fault:
    """The second launch while the first is stopped, at its start-up, while it trains, or after it was killed."""
    return (_stopped, _together, _killed, _stopped, _later, _stopped_and_killed)[index % 6](random, bench)


def _stopped(random: Random, bench: Bench) -> Fault:
    point = random.choice(_STOPS)
    number = random.randint(1, bench.calls[point])

    def check(folder: Path) -> str:
        first = bench.train(folder, prepare=lambda: at(POINTS[point], number, stop))
        with ended_at_exit(first):
            first.wait_until_stopped(bench.limit)
            second = bench.train(folder).wait(GRACE)
            seen = _check_refused(second)
            first.send(signal.SIGCONT)
            check_end(first.wait(bench.limit), [0])
        check_finished(bench, folder / "run")
        return f"second: {seen} after {second.seconds:.1f} s; first: the same bits"

    what = f"a second launch while the first is stopped (SIGSTOP): {point}, {number} of {bench.calls[point]}"
    return Fault(what, "the second: status 2 at once, one line; the first: the same bits", check)


def _stopped_and_killed(random: Random, bench: Bench) -> Fault:
    seconds = random.uniform(0.2, 0.5) * bench.seconds

    def check(folder: Path) -> str:
        first = bench.train(folder)
        with ended_at_exit(first):
            time.sleep(seconds)
            first.send(signal.SIGSTOP)
            has_lock = (folder / "run" / ".lock").exists()
            if has_lock:
                _check_refused(bench.train(folder).wait(GRACE))
            first.send(signal.SIGKILL)
            check_end(first.wait(GRACE), [-signal.SIGKILL, 0])
        check_kept(bench, folder)
        check_resumes(bench, folder)
        return f"second: {'refused' if has_lock else 'not tried'}; third: the same bits"

    what = f"the first is stopped after {seconds:.1f} s, a second is launched, the first killed, a third launched"
    return Fault(what, "the second: status 2, one line; the third: the same bits", check)


def _together(random: Random, bench: Bench) -> Fault:
    delay = random.uniform(0, 0.3)

    def check(folder: Path) -> str:
        first = bench.train(folder)
        time.sleep(delay)
        second = bench.train(folder)
        with ended_at_exit(first, second):
            both = [launch.wait(2 * bench.limit) for launch in (first, second)]
        statuses = sorted(ended.status for ended in both)
        assert statuses in ([0, 2], [0, 0]), [ended.err[-500:] for ended in both]
        for ended in both:
            check_end(ended, [0, 2])
        for ended in both:
            if ended.status == 2:
                _check_refused(ended)
        check_finished(bench, folder / "run")
        return f"statuses {statuses}; the same bits"

    what = f"two launches {delay:.2f} s after one another"
    return Fault(what, "one ends with the same bits, the other with status 2 or finds it done", check)


def _later(random: Random, bench: Bench) -> Fault:
    seconds = random.uniform(0.2, 0.5) * bench.seconds

    def check(folder: Path) -> str:
        first = bench.train(folder)
        with ended_at_exit(first):
            time.sleep(seconds)
            second = bench.train(folder).wait(2 * bench.limit)
            seen = check_end(second, [0, 2])
            if second.status == 2:
                _check_refused(second)
            check_end(first.wait(bench.limit), [0, 2])
        check_finished(bench, folder / "run")
        return f"second: {seen}; the same bits"

    return Fault(f"a second launch {seconds:.1f} s after the first", "one trains, to the same bits", check)


def _killed(random: Random, bench: Bench) -> Fault:
    number = random.randint(1, bench.calls["step"])

    def check(folder: Path) -> str:
        first = bench.train(folder, prepare=lambda: at(POINTS["step"], number, stop))
        with ended_at_exit(first):
            first.wait_until_stopped(bench.limit)
            first.send(signal.SIGKILL)
            second = bench.train(folder)
            check_end(first.wait(GRACE), [-signal.SIGKILL])
            with ended_at_exit(second):
                check_end(second.wait(bench.limit), [0])
        check_finished(bench, folder / "run")
        return "the second resumed to the same bits"

    return Fault(f"the first is killed at step {number}, a second launched at once", "the same bits", check)


def _check_refused(ended: Ended) -> str:
    seen = check_end(ended, [2])
    assert "is being trained by process" in ended.error, ended.error
    return seen
