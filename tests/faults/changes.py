"""A recipe or data that are changed between two launches."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from tests.faults.bench import Bench
from tests.faults.checks import check_end, check_resumes
from tests.faults.damage import tree_hash
from tests.faults.fault import Fault
from tests.faults.points import POINTS, at

_RECIPES = {
    "seed": ("--seed", "7"),
    "epochs": ("--epochs", "1.8"),
    "batch_size": ("--batch-size", "32"),
    "optimizer.learning_rate": ("--optimizer.learning-rate", "0.1"),
    "task.label_smoothing": ("--task.label-smoothing", "0.2"),
    "data.augment": ("--data.augment", "none"),
    "data.image_size": ("--data.image-size", "12"),
    "dtype": ("--dtype", "bfloat16"),
}
_PICTURES = ("--data.folder", "pictures", "--batch-size", "16", "--batch-norm-examples", "8", "--epochs", "2")


def prepare_changes(bench: Bench) -> None:
    """A run on a folder of pictures, stopped after some steps."""
    folder = bench.folder / "with pictures"
    _draw_pictures(folder / "pictures")

    def stop() -> None:
        at(POINTS["step"], 6, lambda: os.kill(os.getpid(), signal.SIGTERM))

    ended = bench.train(folder, *_PICTURES, prepare=stop).wait(bench.limit)
    assert ended.status == 75, ended


def draw_change(index: int, random: Random, bench: Bench) -> Fault:
    """A field of the recipe, or the data."""
    cases = _DATA if index % 2 else _RECIPES
    case = list(cases)[index // 2 % len(cases)]
    return _data_change(case, random, bench) if index % 2 else _recipe_change(case, random, bench)


def _recipe_change(field: str, random: Random, bench: Bench) -> Fault:
    words = _RECIPES[field]
    name = random.choice(["half", "finished"])

    def check(folder: Path) -> str:
        workdir = bench.copy(name, folder)
        before = tree_hash(workdir)
        seen = check_end(bench.train(folder, *words).wait(bench.limit), [2])
        assert f"({field}: " in seen, seen
        assert tree_hash(workdir) == before, "the folder was changed"
        check_resumes(bench, folder)
        return f"{seen}; the first command: the same bits"

    return Fault(f"{' '.join(words)} for a {name} run", f"status 2, a line that names {field}, nothing changed", check)


def _data_change(name: str, random: Random, bench: Bench) -> Fault:
    def check(folder: Path) -> str:
        shutil.copytree(bench.folder / "with pictures", folder, dirs_exist_ok=True)
        _DATA[name](folder / "pictures", random)
        before = tree_hash(folder / "run")
        ended = bench.train(folder, *_PICTURES).wait(bench.limit)
        seen = check_end(ended, [2])
        assert "--data.allow-changed" in ended.error, ended.error
        assert tree_hash(folder / "run") == before, "the folder was changed"
        return seen

    return Fault(f"pictures: {name}", "status 2, a line that names --data.allow-changed, nothing changed", check)


def _rename(folder: Path, random: Random) -> None:
    path = random.choice(sorted(folder.glob("train/*/*")))
    path.rename(path.with_stem(f"{path.stem}-renamed"))


def _repaint(folder: Path, random: Random) -> None:
    path = random.choice(sorted(folder.glob("*/*/*")))
    size = path.stat().st_size
    Image.fromarray(np.frombuffer(random.randbytes(8 * 8 * 3), np.uint8).reshape(8, 8, 3)).save(path)
    assert path.stat().st_size == size


def _swap(folder: Path, random: Random) -> None:
    first, second = random.sample(sorted((folder / "train").iterdir()), 2)
    aside = first.rename(folder / "aside")
    second.rename(first)
    aside.rename(second)


def _add(folder: Path, random: Random) -> None:
    path = random.choice(sorted(folder.glob("train/*/*")))
    shutil.copy(path, path.with_stem("zz-added"))


def _remove(folder: Path, random: Random) -> None:
    random.choice(sorted(folder.glob("*/*/*"))).unlink()


def _rename_class(folder: Path, random: Random) -> None:
    for split in ("train", "test"):
        (folder / split / "a").rename(folder / split / "ab")


_DATA: dict[str, Callable[[Path, Random], None]] = {
    "a file is renamed": _rename,
    "the pixels of a file are replaced": _repaint,
    "two classes are swapped": _swap,
    "a file is added": _add,
    "a file is removed": _remove,
    "a class is renamed": _rename_class,
}


def _draw_pictures(folder: Path) -> None:
    """Three classes of 18 pictures of 8×8 to train on and 6 to test on, as BMP: all files are of one size."""
    pixels = np.random.default_rng(0)
    for split, count in (("train", 18), ("test", 6)):
        for shade, name in enumerate("abc"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                picture = pixels.integers(0, 100, (8, 8, 3)) + 70 * shade
                Image.fromarray(picture.astype(np.uint8)).save(folder / split / name / f"{number}.bmp")
