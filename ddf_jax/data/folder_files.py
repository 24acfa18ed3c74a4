"""The image files of each class of a folder, following symbolic links without reading anything twice."""

import collections
import os
from pathlib import Path
from typing import NamedTuple

from ddf_jax.data.folder_layout import is_folder, is_left_out, natural
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
    """Real directories first, then what links lead to: a directory belongs to the class that it lies in."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._owners: dict[str, str] = {}  # real directory -> class
        self._links: list[tuple[Path, str]] = []  # symbolic links to folders, and their class
        self._files: dict[str, list[tuple[Path, bool]]] = collections.defaultdict(list)  # and whether it is a link
        self.left_out: collections.Counter[str] = collections.Counter()

    def start(self, class_folder: Path, name: str) -> None:
        if class_folder.is_symlink():
            self._links.append((class_folder, name))
        elif class_folder.is_dir():
            self._visit(class_folder, os.path.realpath(class_folder), name)

    def count_files(self, folder: Path) -> None:
        """Counts the files that lie in no class."""
        if folder.is_dir():
            for entry in _entries(folder):
                if not is_left_out(entry.name) and not is_folder(entry):
                    self._leave_out(entry.name)

    def follow_links(self) -> None:
        for link, name in self._links:  # which grows on the way
            real = os.path.realpath(link)
            if f"{os.path.realpath(link.parent)}/".startswith(f"{real.rstrip('/')}/"):
                raise UserError(f"A symbolic link must not lead to a folder that it lies in, got {link} to {real}.")
            self._visit(link, real, name)

    def images(self, name: str) -> list[str]:
        found = []
        for file, is_link in self._files[name]:
            owner = self._owners.get(os.path.dirname(os.path.realpath(file))) if is_link else None
            if owner is None:
                found.append(file.relative_to(self._folder).as_posix())
            else:
                self._check_owner(file, owner, name)
        return sorted(found)

    def _visit(self, directory: Path, real: str, name: str) -> None:
        if real in self._owners:
            self._check_owner(directory, self._owners[real], name)
            return
        self._owners[real] = name
        for entry in sorted(_entries(directory), key=lambda entry: natural(entry.name)):
            path = directory / entry.name
            if is_left_out(entry.name):
                continue
            if is_folder(entry):
                if entry.is_symlink():
                    self._links.append((path, name))
                else:
                    self._visit(path, f"{real}/{entry.name}", name)
            elif entry.name.lower().endswith(EXTENSIONS):
                self._files[name].append((path, entry.is_symlink()))
            else:
                self._leave_out(entry.name)

    def _leave_out(self, name: str) -> None:
        self.left_out[Path(name).suffix.lower() or "without a suffix"] += 1

    def _check_owner(self, path: Path, owner: str, name: str) -> None:
        if owner != name:
            raise UserError(
                f"A symbolic link must not lead into another class, got {path} of {name}, which leads to what {owner} "
                "holds. Delete it."
            )


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except PermissionError as error:
        raise UserError(f"Every folder of images must be readable, got {directory}: {error.strerror}.") from None
