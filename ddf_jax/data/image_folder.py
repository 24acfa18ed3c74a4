"""A plain folder of images, one sub-folder per class.

The layouts are those of `ddf_jax.data.folder_layout`. Where files are to be split, evaluation gets the tenth of each
class whose relative paths have the smallest SHA-256, at least one file where the class has two. Files that are added
later hardly move the others.

Classes are numbered in natural order (`class2` before `class10`). Images may lie deeper inside a class folder; hidden
files and folders are left out, and so is what is no image, which is counted in the log.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ddf_jax.data.config import DEFAULT_DECODING, Decoding
from ddf_jax.data.crop import Crop
from ddf_jax.data.fingerprint import digest_classes
from ddf_jax.data.folder_files import EXTENSIONS, list_classes
from ddf_jax.data.folder_layout import Layout, describe_folder, find_layout, sub_folders
from ddf_jax.data.image_files import ImageFiles
from ddf_jax.errors import UserError

_log = logging.getLogger(__name__)


class ImageFolder:
    """The images of one split, by index: `{"image": uint8 [H, W, 3], "label": int32}`, or None for an unreadable file.

    Unreadable files are those of `ImageFiles`, which checks some of them here.

    Raises:
        UserError: the folder is not laid out as above, a class has no image, a symbolic link leads into another class
            or to a folder that it lies in, or too many files are unreadable.
    """

    channels = ImageFiles.channels
    shape = None

    def __init__(
        self,
        folder: Path,
        split: Literal["train", "eval"],
        max_corrupt_share: float,
        decoding: Decoding = DEFAULT_DECODING,
        split_names: tuple[str, str] = ("train", "test"),
    ):
        self.folder = folder.expanduser()
        self.name = str(self.folder)
        self.class_names, self.files, self.labels = _list_split(self.folder, split, split_names)
        self._images = ImageFiles(self.folder, self.files, max_corrupt_share, decoding)

    @property
    def corrupt(self) -> dict[str, str]:
        """Path below the folder -> reason, for every unreadable file found so far in this process."""
        return self._images.corrupt

    def describe(self, index: int) -> str:
        return self._images.describe(index)

    def fingerprint(self) -> dict[str, str]:
        return digest_classes(self.folder, self.files, self.labels.tolist(), self.class_names)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        return self.read(index)

    def read(self, index: int, crop: Crop | None = None) -> dict[str, Any] | None:
        image = self._images[index] if crop is None else self._images.crop(index, crop)
        return None if image is None else {"image": image, "label": self.labels[index]}


def _list_split(
    folder: Path, split: Literal["train", "eval"], names: tuple[str, str]
) -> tuple[tuple[str, ...], list[str], np.ndarray]:
    """Class names, files relative to `folder` in posix form, and the label of each file, int32."""
    layout = find_layout(folder, *names)
    class_names = tuple(sub_folders(layout.train))
    root = layout.train if split == "train" else layout.eval
    images, left_out = list_classes(folder, root, class_names)
    _check_shared(layout, class_names)
    files, labels = [], []
    for label, name in enumerate(class_names):
        found = images[name]
        if not found and root == layout.train:
            raise UserError(
                f"Every class must have an image ({', '.join(EXTENSIONS)}), got none in {root / name}: "
                f"{describe_folder(root / name)}."
            )
        if layout.eval == layout.train:
            held_out = _held_out(found)
            found = [file for file in found if (file in held_out) == (split == "eval")]
        files += found
        labels += [label] * len(found)
    if not files:
        raise UserError(
            f"There must be an image to {split} on in {root}, got none for its {len(class_names)} classes. Without a "
            "folder `test`, a tenth of each class is held out for evaluation."
        )
    if left_out and (split == "train" or layout.eval != layout.train):
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(left_out.items()))
        _log.warning("left out in %s, being no images in a class: %s", root, counts)
    return class_names, files, np.array(labels, np.int32)


def _check_shared(layout: Layout, class_names: tuple[str, ...]) -> None:
    """Refuses a class whose folders to train and to evaluate on are one, by a symbolic link."""
    for name in class_names if layout.train != layout.eval else ():
        train, evaluation = layout.train / name, layout.eval / name
        if evaluation.exists() and train.samefile(evaluation):
            raise UserError(f"Evaluation must not use training images, got {evaluation}, a link to those of {train}.")


def _held_out(files: list[str]) -> set[str]:
    """The tenth of one class that is for evaluation."""
    count = max(1, round(len(files) / 10)) if len(files) > 1 else 0
    return set(sorted(files, key=lambda file: hashlib.sha256(os.fsencode(file)).digest())[:count])
