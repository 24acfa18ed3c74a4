"""Power cuts: a training whose every change of a file is recorded, cut at a random moment."""

import atexit
import functools
import pickle
from pathlib import Path
from random import Random
from typing import Any

from ddf_jax.training.metrics import read_metrics
from tests.ddf_jax.training.processes import without_times
from tests.faults.bench import EVERY_STEP, Bench, whole_steps
from tests.faults.checks import check_bits, check_resumes
from tests.faults.fault import Fault
from tests.faults.journal import Journal, Recorder, replay_journalled, replay_synced

_WORDS = (*EVERY_STEP, "--keep-checkpoints", "2")


def prepare_power(bench: Bench) -> None:
    """Records a training that saves after every step and keeps two checkpoints."""
    folder = bench.folder / "recorded"
    folder.mkdir()
    ended = bench.train(folder, *_WORDS, prepare=lambda: record(folder, folder / "journal")).wait(bench.limit * 2)
    assert ended.status == 0, ended


def record(root: Path, file: Path) -> None:
    """Records what this process does in `root`, and writes the journal to a file when it ends."""
    recorder = Recorder(root)

    def write() -> None:
        recorder.close()
        file.write_bytes(pickle.dumps(recorder.journal))

    atexit.register(write)


def draw_power(index: int, random: Random, bench: Bench) -> Fault:
    """A cut that leaves only what was synced, or what a file system with a journal has; each third run is resumed."""
    journal = _journal(bench.folder)
    cut, is_journalled, resumes = random.randrange(len(journal.trees)), index % 2 == 1, index % 3 == 0

    def check(folder: Path) -> str:
        disk = folder / "disk"
        replay(journal, cut, disk, random if is_journalled else None)
        newest = check_cut(journal, cut, disk / "run", bench.rows)
        if newest is not None:
            check_bits(bench, disk / "run", newest)
        if resumes:
            (disk / "saves").unlink(missing_ok=True)
            check_resumes(bench, disk)
        return f"step {newest} is there with its rows" + (", resumed to the same bits" if resumes else "")

    left = "the names of a journal and what was synced" if is_journalled else "only what was synced"
    return Fault(
        f"power cut at change {cut} of {len(journal.trees)}, {left} remains",
        f"the checkpoint of step {journal.completed[cut]} or a newer one, whole, and the rows up to it",
        check,
    )


def replay(journal: Journal, cut: int, target: Path, random: Random | None) -> None:
    """Leaves in a new folder what is left after a cut: only what was synced, or, with `random`, what a journal has."""
    if random is None:
        replay_synced(journal, cut, target)
    else:
        replay_journalled(journal, cut, target, random)


def check_cut(journal: Journal, cut: int, workdir: Path, rows: list[dict[str, Any]]) -> int | None:
    """The newest checkpoint after a cut: not older than the last that was complete, and the rows up to it are there."""
    named = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    whole = whole_steps(workdir)
    assert sorted(named) == whole, f"of the checkpoints {sorted(named)} only {whole} are whole"
    newest = whole[-1] if whole else None
    assert journal.completed[cut] <= (-1 if newest is None else newest), f"{journal.completed[cut]} is lost: {whole}"
    if newest is not None:
        found = [without_times(row) for row in read_metrics(workdir) if row["step"] <= newest]
        assert found == [row for row in rows if row["step"] <= newest], f"rows up to step {newest} are lost: {found}"
    return newest


@functools.cache
def _journal(bench: Path) -> Journal:
    return pickle.loads((bench / "recorded" / "journal").read_bytes())
