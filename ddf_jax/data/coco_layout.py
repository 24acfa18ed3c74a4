"""Where the files of a split are in a folder in COCO's layout.

`DIR/annotations/instances_train2017.json` belongs to the images in `DIR/train2017/` (or `DIR/images/train2017/`), and
`DIR/annotations/panoptic_train2017.json` also to the PNG files in `DIR/annotations/panoptic_train2017/`. The split may
have any usual name (`train`, `val2014`); `val` takes the place of a missing `test`, as COCO's test images have no
annotations.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from ddf_jax.data.folder_layout import describe_folder, split_kind
from ddf_jax.errors import UserError

Kind = Literal["instances", "panoptic"]


class CocoSplit(NamedTuple):
    """The annotations of a split, its images and, for panoptic ones, its PNG files."""

    annotations: Path
    images: Path
    segments: Path | None


def find_coco_split(folder: Path, split: str, option: str, kind: Kind) -> CocoSplit:
    """The files of a split.

    Args:
        folder: the folder.
        split: the name of the split, such as `train2017`, or a usual name for it.
        option: the setting that `split` comes from, for errors.
        kind: which annotations.

    Raises:
        UserError: there is no such split, or two, or its images are missing.
    """
    annotations = folder / "annotations"
    prefix = f"{kind}_"
    if not annotations.is_dir():
        raise UserError(
            f"`data.folder` must be in COCO's layout, annotations/{prefix}train2017.json and train2017/, got {folder}: "
            f"{describe_folder(folder) if folder.is_dir() else 'no such folder'}. `--data.folder DIR` names another."
        )
    names = sorted(file.stem.removeprefix(prefix) for file in annotations.glob(f"{prefix}*.json"))
    name = _pick(names, split)
    if name is None:
        raise UserError(
            f"`data.{option}` must be a split with annotations/{prefix}….json in {folder}, got {split!r}: there are "
            f"{', '.join(names) or 'none'}."
        )
    segments = None
    if kind == "panoptic":
        segments = _existing(folder, (f"annotations/panoptic_{name}", f"panoptic_{name}"), "PNG files")
    return CocoSplit(
        annotations / f"{prefix}{name}.json", _existing(folder, (name, f"images/{name}"), "images"), segments
    )


def has_annotations(folder: Path, kind: Kind) -> bool:
    """Whether a folder has annotations of a kind."""
    return any((folder.expanduser() / "annotations").glob(f"{kind}_*.json"))


def _pick(names: list[str], split: str) -> str | None:
    if split in names:
        return split
    kind = split_kind(split)
    others = {"test": "val", "val": "test"}
    for wanted in (kind, others.get(kind or "")):
        found = [name for name in names if wanted is not None and split_kind(name) == wanted]
        if len(found) > 1:
            raise UserError(f"The split {split} must be one, got {' and '.join(found)}. Name one of them.")
        if found:
            return found[0]
    return None


def _existing(folder: Path, names: tuple[str, ...], what: str) -> Path:
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise UserError(f"{folder} must have the {what} of its annotations in {' or '.join(names)}, got no such folder.")
