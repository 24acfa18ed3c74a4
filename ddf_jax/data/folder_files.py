"""The image files of each class of a folder, following symbolic links without reading anything twice."""

import collections
import os
from pathlib import Path
from typing import NamedTuple

from ddf_jax.data.folder_layout import is_folder, is_left_out
from ddf_jax.errors import UserError

EXTENSIONS = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip


class ClassFiles(NamedTuple):
    """What the classes hold.

    Args:
        images: of each class, the image files relative to the folder in posix form, sorted.
        left_out: how many files of each suffix are no images.
    """

    images: dict[str, list[str]]
    left_out: collections.Counter[str]


def list_classes(folder: Path, root: Path, class_names: tuple[str, ...]) -> ClassFiles:
    """All images below the classes of `root`, which lies in `folder`. Each real directory is read once.

    Raises:
        UserError: a symbolic link leads to a folder that it lies in, or into another class; or a folder cannot be read.
    """
    walk = _Walk(folder)
    walk.count_files(root)
    for name in class_names:
        walk.start(root / name, name)
    walk.follow_links()
    return ClassFiles({name: walk.images(name) for name in class_names}, walk.left_out)


class _Walk:
    """Real directories first, then what links lead to: a directory belongs to the class that it lies in.

    Paths are strings: pathlib would take most of the time of a folder with a million files.
    """

    def __init__(self, folder: Path):
        self._start = len(str(folder / "x")) - 1  # of a path relative to the folder, which may be "."
        self._owners: dict[str, str] = {}  # real directory -> class
        self._links: list[tuple[str, str]] = []  # symbolic links to folders, and their class
        self._files: dict[str, list[str]] = collections.defaultdict(list)
        self._file_links: dict[str, list[str]] = collections.defaultdict(list)
        self.left_out: collections.Counter[str] = collections.Counter()

    def start(self, class_folder: Path, name: str) -> None:
        if class_folder.is_symlink():
            self._links.append((str(class_folder), name))
        elif class_folder.is_dir():
            self._visit(str(class_folder), os.path.realpath(class_folder), name)

    def count_files(self, folder: Path) -> None:
        """Counts the files that lie in no class."""
        if folder.is_dir():
            for entry in _entries(str(folder)):
                if not is_left_out(entry.name) and not is_folder(entry):
                    self._leave_out(entry.name)

    def follow_links(self) -> None:
        for link, name in self._links:  # which grows on the way
            real = os.path.realpath(link)
            if os.path.join(os.path.realpath(os.path.dirname(link)), "").startswith(os.path.join(real, "")):
                raise UserError(f"A symbolic link must not lead to a folder that it lies in, got {link} to {real}.")
            self._visit(link, real, name)

    def images(self, name: str) -> list[str]:
        found = self._files[name]
        for file in self._file_links[name]:
            owner = self._owners.get(os.path.dirname(os.path.realpath(file)))
            if owner is None:
                found.append(file)
            else:
                _check_owner(file, owner, name)
        return sorted(file[self._start :].replace(os.sep, "/") for file in found)

    def _visit(self, directory: str, real: str, name: str) -> None:
        if real in self._owners:
            _check_owner(directory, self._owners[real], name)
            return
        self._owners[real] = name
        links = []
        for entry in _entries(directory):
            if is_left_out(entry.name):
                continue
            if is_folder(entry):
                if entry.is_symlink():
                    links.append((entry.path, name))
                else:
                    self._visit(entry.path, os.path.join(real, entry.name), name)
            elif entry.name.lower().endswith(EXTENSIONS):
                (self._file_links if entry.is_symlink() else self._files)[name].append(entry.path)
            else:
                self._leave_out(entry.name)
        self._links += sorted(links)  # the first of two links to one folder names its files, on every machine

    def _leave_out(self, name: str) -> None:
        self.left_out[os.path.splitext(name)[1].lower() or "without a suffix"] += 1


def _check_owner(path: str, owner: str, name: str) -> None:
    if owner != name:
        raise UserError(
            f"A symbolic link must not lead into another class, got {path} of {name}, which leads to what {owner} "
            "holds. Delete it."
        )


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except PermissionError as error:
        raise UserError(f"Every folder of images must be readable, got {directory}: {error.strerror}.") from None
