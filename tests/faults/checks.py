"""What holds after every fault."""

from collections.abc import Collection
from pathlib import Path

from tests.ddf_jax.training.processes import metrics
from tests.faults.bench import KEEP, STEPS, Bench, array_hashes, completed_saves, whole_steps
from tests.faults.launches import Ended, in_child


def check_end(ended: Ended, statuses: Collection[int]) -> str:
    """A launch ended as expected: its status, and where that is an error of the program's own, one line."""
    assert ended.status in statuses, f"status {ended.status} instead of {sorted(statuses)}: {ended.err[-600:]}"
    assert "Traceback" not in ended.err, ended.err[-1500:]
    lines = [line for line in ended.err.splitlines() if line.startswith("ddf: ")]
    assert len(lines) == (ended.status > 0), f"status {ended.status} with {len(lines)} lines: {ended.err[-600:]}"
    assert not lines or ended.error == lines[0], f"not the last line: {ended.err[-600:]}"
    return f"status {ended.status}" if ended.status <= 0 else f"status {ended.status}, {lines[0][5:125]}"


def check_kept(bench: Bench, folder: Path, keep: int = KEEP) -> list[int]:
    """No good checkpoint is lost: of those whose save completed or that have a name, the newest are there and whole.

    The newest has the bits of a run without faults. Returns the whole ones.
    """
    workdir = folder / "run"
    whole = whole_steps(workdir)
    expected = sorted({*whole, *completed_saves(folder)})[-keep:]
    assert set(expected) <= set(whole), f"{expected} were saved, {whole} are whole"
    if whole and whole[-1] > 0:
        check_bits(bench, workdir, whole[-1])
    return whole


def check_bits(bench: Bench, workdir: Path, step: int) -> None:
    """A checkpoint has the bits of a run without faults."""
    found, expected = in_child(array_hashes, workdir, [step])[step], bench.bits[step]
    differing = [name for name in found | expected if found.get(name) != expected.get(name)]
    assert not differing, f"{len(differing)} arrays of step {step} differ, such as {differing[0]}"


def check_resumes(bench: Bench, folder: Path, *words: str) -> None:
    """The same command ends with the bits and the metrics of a run without faults."""
    was_done = (folder / "run" / "summary.json").exists()  # then it is reported, and not touched
    check_end(bench.train(folder, *words).wait(bench.limit), [0])
    check_finished(bench, folder / "run")
    names = [path.name for path in (folder / "run" / "checkpoints").iterdir()]
    left = [name for name in names if name.endswith((".partial", ".removed"))]
    assert was_done or not left, f"{left} are left over"


def check_finished(bench: Bench, workdir: Path) -> None:
    """A finished run is that without faults."""
    assert (workdir / "summary.json").exists(), "no summary.json"
    check_bits(bench, workdir, STEPS)
    check_rows(bench, workdir)


def check_rows(bench: Bench, workdir: Path) -> None:
    """The rows of metrics are those of a run without faults."""
    rows = metrics(workdir)
    differing = [row["step"] for row, expected in zip(rows, bench.rows, strict=False) if row != expected]
    assert not differing, f"the rows of metrics of the steps {differing} differ"
    assert len(rows) == len(bench.rows), f"{len(rows)} rows of metrics instead of {len(bench.rows)}"
