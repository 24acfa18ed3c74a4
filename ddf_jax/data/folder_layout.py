"""Which sub-folders of a folder of images are splits and which are classes.

Two layouts:

- `DIR/train/<class>/…` and `DIR/test/<class>/…` (or `val`), classes being the sub-folders of `train`. Other usual
  names, such as `Training`, `valid`, `validation` or `test_set`, count too;
- `DIR/<class>/…`, of which a fixed tenth is for evaluation.

Anything else is an error that describes what was seen: a split taken for a class trains to a perfect and useless score.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from ddf_jax.errors import UserError

_KINDS = {
    "train": re.compile(r"train(ing)?"),
    "test": re.compile(r"test(ing)?"),
    "val": re.compile(r"val(id(ation)?)?|dev|eval(uation)?"),
}
_ENDING = re.compile(r"[ _-]?(set|data|images?|imgs?|split)?[ _-]?[0-9]*$")  # `training_set`, `val2017`

# What systems leave behind, besides hidden files and folders: Synology, macOS, Windows, ext4.
_SYSTEM_FOLDERS = {"@eadir", "#recycle", "__macosx", "$recycle.bin", "system volume information", "lost+found"}

_CHECKED_CLASSES = 50  # looked into for splits below classes: a wrong layout shows in the first


class Layout(NamedTuple):
    """The folders that hold the classes to train and to evaluate on, one and the same where files are to be split."""

    train: Path
    eval: Path


def find_layout(folder: Path, train_split: str = "train", eval_split: str = "test") -> Layout:
    """The layout of a folder.

    Args:
        folder: the folder.
        train_split: the folder to train on: its name, or a usual name for it.
        eval_split: the folder to evaluate on likewise; `val` takes the place of a missing `test`, and the reverse.

    Raises:
        UserError: the folder does not fit either layout, or a split has no folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"`data.folder` must be a folder of images, one sub-folder per class, got {folder}: no such folder."
        )
    names = sub_folders(folder)
    with_classes = [name for name in names if sub_folders(folder / name)]
    train = _pick(folder, with_classes, train_split, "train_split")
    if train is not None:
        evaluation = _pick(folder, [name for name in with_classes if name != train], eval_split, "eval_split")
        if evaluation is None:
            raise UserError(
                f"{folder / train} must have a folder `test` or `val` next to it with the same classes, got neither "
                f"with sub-folders: {describe_folder(folder)}."
            )
        layout = Layout(folder / train, folder / evaluation)
    else:
        splits = [name for name in names if split_kind(name)]
        if any(split_kind(name) != "train" for name in splits) or len(splits) > 1:
            raise UserError(
                f"{folder} must hold train/<class>/ and test/<class>/, or one sub-folder per class, got the split "
                f"{', '.join(splits)} in {describe_folder(folder)}. Make a sub-folder per class in each split; rename "
                "a class that is called like a split."
            )
        _pick(folder, [], eval_split, "eval_split")
        layout = Layout(folder, folder)
    _check_classes(layout)
    return layout


def split_kind(name: str) -> str | None:
    """`train`, `test` or `val` if a folder is called like a split."""
    stem = _ENDING.sub("", name.lower())
    return next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(stem)), None)


def sub_folders(folder: Path) -> list[str]:
    """Its sub-folders in natural order, without hidden ones and those of a system."""
    if not folder.is_dir():
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted((e.name for e in entries if is_folder(e) and not is_left_out(e.name)), key=natural)
    except PermissionError as error:
        raise UserError(f"Every folder in {folder.parent} must be readable, got {folder}: {error.strerror}.") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to itself is none, where `DirEntry.is_dir` raises."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def is_left_out(name: str) -> bool:
    """Whether a file or folder is hidden or a system's."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key under which `class2` comes before `class10`; the name itself tells `a` from `A` and `1` from `01`."""
    parts = re.split("([0-9]+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def describe_folder(folder: Path) -> str:
    """What is in a folder, in a few words: `2 folders (test, train) and 3 files`."""
    folders = sub_folders(folder)
    files = sum(1 for path in folder.iterdir() if not path.is_dir() and not is_left_out(path.name))
    names = ", ".join(folders[:6]) + (", …" if len(folders) > 6 else "")
    return " and ".join(
        [f"{len(folders)} folder{'s' * (len(folders) != 1)}" + (f" ({names})" if folders else "")]
        + [f"{files} file{'s' * (files != 1)}"] * (files > 0)
    )


def _pick(folder: Path, names: list[str], split: str, option: str) -> str | None:
    """The folder for a split: the one that is called so, or the one whose name is usual for it."""
    kind = split_kind(split)
    order = {"test": ("test", "val"), "val": ("val", "test"), "train": ("train",)}.get(kind or "", ())
    choices = [[name for name in names if name == split], [name for name in names if name.lower() == split.lower()]]
    choices += [[name for name in names if split_kind(name) == kind] for kind in order]
    found = next(filter(None, choices), [])
    if kind is None and not found:
        raise UserError(
            f"`data.{option}` must be a folder in {folder} with one sub-folder per class, got {split!r}: there are "
            f"{describe_folder(folder)}."
        )
    if len(found) > 1:
        raise UserError(
            f"{folder} must have one folder for the split {split}, got {' and '.join(found)}. Rename one, or choose "
            f"with `data.{option}`."
        )
    return found[0] if found else None


def _check_classes(layout: Layout) -> None:
    """Refuses sub-folders that cannot be the classes."""
    root, names = layout.train, sub_folders(layout.train)
    if not names:
        raise UserError(
            f"{root} must hold one sub-folder per class with images in it, got no sub-folder: {describe_folder(root)}."
        )
    if len(names) == 1:
        deeper = sub_folders(root / names[0])
        hint = (
            f" If the classes are in {root / names[0]}, give --data.folder {root / names[0]}."
            if deeper and layout.eval == root
            else ""
        )
        raise UserError(f"There must be at least two classes in {root}, got {describe_folder(root)}.{hint}")
    if layout.eval != root and (unknown := set(sub_folders(layout.eval)) - set(names)):
        raise UserError(f"Each class in {layout.eval} must also be in {root}, got {sorted(unknown)}.")
    for name in names[:_CHECKED_CLASSES]:
        below = sub_folders(root / name)
        if len({split_kind(folder) for folder in below} - {None}) > 1:
            raise UserError(
                f"Splits must lie above classes, as in train/{name}/, got {describe_folder(root / name)} in "
                f"{root / name}. Move them, or delete their names from the paths to let a tenth be held out."
            )
        siblings = set(names) - {name}
        if len(siblings) > 1 and siblings <= set(below) and not (root / name).is_symlink():
            raise UserError(
                f"A class must not hold the other classes again, got {describe_folder(root / name)} in {root / name}. "
                "Delete that copy."
            )
