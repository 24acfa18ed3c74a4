"""Damaged files: of checkpoints, and of the run's folder."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.faults.bench import STEPS, Bench, whole_steps
from tests.faults.checks import check_bits, check_end, check_finished, check_resumes, check_rows
from tests.faults.fault import Fault

Way = Callable[[Path, Random], None]


def flip(path: Path, random: Random) -> None:
    """Changes a bit."""
    data = bytearray(path.read_bytes())
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    else:
        data = bytearray(b"\n")
    path.write_bytes(data)


def truncate(path: Path, random: Random) -> None:
    """Cuts the end off."""
    data = path.read_bytes()
    path.write_bytes(data[: random.randrange(len(data))] if data else b"\n")


def delete(path: Path, random: Random) -> None:
    """Removes the file."""
    path.unlink()


def empty(path: Path, random: Random) -> None:
    """Leaves nothing in the file, or something in an empty one."""
    path.write_bytes(b"" if path.stat().st_size else b"\n")


WAYS: tuple[Way, ...] = (flip, truncate, delete, empty)


def damage_checkpoint(folder: Path, random: Random) -> str:
    """Damages a random file of a checkpoint, of a random kind. Returns what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = sorted({path.parent.relative_to(folder).as_posix() for path in files})
    kind = random.choice(kinds)
    path = random.choice([path for path in files if path.parent == folder / kind])
    way = random.choice(WAYS)
    way(path, random)
    return f"{way.__name__} {path.relative_to(folder.parent)}"


def draw_damage(index: int, random: Random, bench: Bench) -> Fault:
    """One of the cases, in turn."""
    return list(_CASES.values())[index % len(_CASES)](random, bench)


def _newest(name: str, count: int) -> Callable[[Random, Bench], Fault]:
    def draw(random: Random, bench: Bench) -> Fault:
        def check(folder: Path) -> str:
            workdir = bench.copy(name, folder)
            steps = whole_steps(workdir)
            done = [damage_checkpoint(workdir / "checkpoints" / str(step), random) for step in steps[-count:]]
            left = steps[:-count]
            assert whole_steps(workdir) == left, f"{done} was not noticed"
            before = tree_hash(workdir)
            ended = bench.train(folder).wait(bench.limit)
            if left:
                check_end(ended, [0])
                for step in steps[-count:]:
                    assert f"Skipped the unreadable checkpoint {workdir}/checkpoints/{step}: " in ended.err, ended.err
                assert name == "finished" or f"from step {left[-1]} of" in ended.out, ended.out
                check_finished(bench, workdir)
                return f"{', '.join(done)}: named and skipped, resumed from {left[-1]} to the same bits"
            seen = check_end(ended, [2])
            assert "is readable" in ended.error, ended.error
            assert tree_hash(workdir) == before, "the folder was changed"
            return f"{', '.join(done)}: {seen}"

        what = f"{'all' if count == 3 else count} of 3 checkpoints of a {name} run damaged"
        expected = "status 2, one line, nothing changed" if count == 3 else "named, skipped, resumed to the same bits"
        return Fault(what, expected, check)

    return draw


def _file(name: str, file: str) -> Callable[[Random, Bench], Fault]:
    """A file of the run's folder, which is written again."""

    def draw(random: Random, bench: Bench) -> Fault:
        way = random.choice(WAYS)

        def check(folder: Path) -> str:
            workdir = bench.copy(name, folder)
            for path in workdir.glob(file):
                way(path, random)
            ended = bench.train(folder).wait(bench.limit)
            seen = check_end(ended, [0, 2] if (name, file) == ("finished", "recipe.json") else [0])
            assert ended.status or (workdir / "summary.json").exists()
            check_bits(bench, workdir, STEPS if name == "finished" or ended.status == 0 else whole_steps(workdir)[-1])
            if file != "metrics.jsonl":
                check_rows(bench, workdir)
            return seen

        return Fault(
            f"{way.__name__} {file} of a {name} run", "one line if any, no checkpoint lost, the same bits", check
        )

    return draw


def _lines(random: Random, bench: Bench) -> Fault:
    garbage = [b"null", b"[1]", b'{"step": "7"}', b'{"step": 3, "ep', b"\xff\xfe", b"\0" * 40, b"", b'{"step": null}']
    added = random.sample(garbage, 3)

    def check(folder: Path) -> str:
        workdir = bench.copy("half", folder)
        lines = (workdir / "metrics.jsonl").read_bytes().splitlines()
        for line in added:
            lines.insert(random.randint(0, len(lines)), line)
        (workdir / "metrics.jsonl").write_bytes(b"\n".join(lines) + random.choice([b"", b"\n", b'\n{"step": 16, ']))
        check_resumes(bench, folder)
        return "resumed to the same bits, all rows are there"

    return Fault(f"lines {added} in metrics.jsonl", "the lines go, every row stays", check)


def _leftovers(random: Random, bench: Bench) -> Fault:
    name = random.choice(["half", "finished"])

    def check(folder: Path) -> str:
        workdir = bench.copy(name, folder)
        checkpoints = workdir / "checkpoints"
        newest = checkpoints / str(whole_steps(workdir)[-1])
        for suffix in (".partial", ".removed"):
            for step in (random.randint(1, 30), 20):
                shutil.copytree(newest, checkpoints / f"{step}{suffix}", dirs_exist_ok=True)
                damage_checkpoint(checkpoints / f"{step}{suffix}", random)
        (workdir / ".lock").write_text("process 1 on another host")
        (workdir / ".summary.json.tmp").write_bytes(b"{")
        ended = bench.train(folder).wait(bench.limit)
        check_end(ended, [0])
        check_bits(bench, workdir, STEPS)
        check_rows(bench, workdir)
        assert not (workdir / ".lock").exists(), ".lock is left over"
        return "ended with the same bits"

    return Fault(f".partial, .removed, .lock and .tmp in a {name} run", "they are no obstacle; the same bits", check)


_CASES = {
    "newest": _newest("half", 1),
    "summary": _file("finished", "summary.json"),
    "lines": _lines,
    "two": _newest("half", 2),
    "leftovers": _leftovers,
    "all": _newest("half", 3),
    "finished": _newest("finished", 1),
    "recipe": _file("half", "recipe.json"),
    "metrics": _file("half", "metrics.jsonl"),
    "recipe of a finished run": _file("finished", "recipe.json"),
    "events": _file("half", "events.out.*"),
}


def tree_hash(folder: Path) -> str:
    """Names and contents of everything in a folder."""
    hashes = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        hashes.update(f"{path.relative_to(folder)}\0{path.is_dir()}\0".encode())
        if path.is_file():
            hashes.update(hashlib.sha256(path.read_bytes()).digest())
    return hashes.hexdigest()
