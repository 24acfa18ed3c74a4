"""`ddf detect`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ddf_jax.cli.command import Checkpoint, CommandResult, RecipeFile
from ddf_jax.errors import UserError

if TYPE_CHECKING:
    from ddf_jax.data.info import DataInfo
    from ddf_jax.training.detect import ImageObjects

_SCORE = 0.5  # the least of an object that is shown to people


@dataclasses.dataclass(frozen=True)
class DetectCommand:
    """Find objects in images: boxes, masks and panoptic maps.

    Boxes are x1, y1, x2, y2 in pixels of the image, turned upright by its EXIF orientation. With --out, DIR gets for
    each image NAME_objects.png and, of a panoptic run, NAME_panoptic.png, a picture of the segments, and NAME_ids.png,
    COCO's panoptic PNG: id = R + 256 G + 256² B = class + 1000 · number of the object; the classes of stuff follow
    those of objects, and 0 is no segment. Where an image cannot be read, nothing is written.

    Example:
      ddf detect runs/rooms kitchen.jpg hall.png --out pictures
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run's folder."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]
    """Image files of any size, prepared like the run's test images."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The folder of the pictures, created where it is missing."""
    score: Annotated[float | None, tyro.conf.arg(metavar="SCORE")] = None
    """Lowest score of an object; default: 0.5 in pictures and text, 0 in --json."""
    checkpoint: Checkpoint = "newest"
    recipe_file: RecipeFile = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `[{image, detections: [{label, score, box, mask: COCO RLE or null}], panoptic: path of NAME_ids.png or
    null}]`."""

    def run(self) -> CommandResult:
        if not self.images:
            raise UserError("`ddf detect` needs the path of an IMAGE after the RUN.")
        if self.score is not None and not 0 <= self.score <= 1:
            raise UserError(f"--score must be from 0 to 1, got {self.score}.")
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out must be a folder, got the file {self.out}.")
        from ddf_jax.serving.services.detection import detection_row
        from ddf_jax.training.detect import detect
        from ddf_jax.training.run import load_run

        run = load_run(self.folder, self.checkpoint, recipe_file=self.recipe_file)
        found_of_all = detect(run, self.images)
        stems = [None] * len(self.images) if self.out is None else _stems(self.images, self.out)
        rows, texts, least = [], [], _SCORE if self.score is None else self.score
        for path, stem, found in zip(self.images, stems, found_of_all, strict=True):
            shown = found.above(least)
            ids = None if stem is None else _write(stem, shown, run.info)
            listed = found if self.score is None else shown
            rows.append(
                detection_row(str(path), listed.lists(), run.info.class_names, None if ids is None else str(ids))
            )
            texts.append(_text(path, shown, run.info, least))
        if self.out is not None:
            texts.append(f"The pictures are in {self.out}.")
        return CommandResult(rows, "\n\n".join(texts))


_KINDS = ("_objects.png", "_panoptic.png", "_ids.png")


def _stems(images: Sequence[Path], out: Path) -> list[Path]:
    """For each image the start of the names of its pictures: no two are the same, and none is an image's.

    Raises:
        UserError: the folder cannot be made.
    """
    from ddf_jax.files import make_folder

    try:
        make_folder(out.absolute())
    except OSError as error:
        raise UserError(f"--out must be a folder that can be created, got {out}: {error.strerror}.") from None
    taken = {str(path.resolve()).casefold() for path in images}
    stems = []
    for image in images:
        number = 1
        while True:
            stem = out / (image.stem if number == 1 else f"{image.stem}-{number}")
            names = {str(_file(stem, kind).resolve()).casefold() for kind in _KINDS}
            if taken.isdisjoint(names):
                break
            number += 1
        taken |= names
        stems.append(stem)
    return stems


def _file(stem: Path, kind: str) -> Path:
    return stem.with_name(stem.name + kind)


def _write(stem: Path, found: "ImageObjects", info: "DataInfo") -> Path | None:
    """Writes an image's pictures; returns the file of its panoptic map."""
    from ddf_jax.data.decode import encode_png
    from ddf_jax.data.panoptic import ids_to_rgb
    from ddf_jax.files import write_atomically
    from ddf_jax.training.drawing.objects import draw_objects
    from ddf_jax.training.drawing.segments import draw_segments

    names, image = (*info.class_names, *info.stuff_names), found.image
    image = image.repeat(3, axis=-1) if image.shape[-1] == 1 else image
    pictures = [draw_objects(image, found.boxes, found.labels, names, scores=found.scores, masks=found.masks)]
    if found.panoptic is not None:
        pictures += [draw_segments(image, found.panoptic, names, info.num_classes), ids_to_rgb(found.panoptic)]
    for kind, picture in zip(_KINDS, pictures, strict=False):
        try:
            write_atomically(_file(stem, kind), encode_png(picture).getvalue())
        except OSError as error:
            raise UserError(f"{_file(stem, kind)} must be a file that can be written: {error.strerror}.") from None
    return None if found.panoptic is None else _file(stem, _KINDS[-1])


def _text(path: Path, found: "ImageObjects", info: "DataInfo", least: float) -> str:
    height, width = found.image.shape[:2]
    title = f"{path}, {width}×{height} pixels"
    if not len(found.boxes):
        return f"{title}: no object with a score of {least:g} or more."
    names = [info.class_names[label] for label in found.labels.tolist()]
    edge = max(5, *map(len, names))
    lines = [f"  {'class':{edge}}  score      x1      y1      x2      y2"]
    for name, score, box in zip(names, found.scores.tolist(), found.boxes.tolist(), strict=True):
        lines.append(f"  {name:{edge}}  {score:5.2f}" + "".join(f"{side:8.1f}" for side in box))
    return "\n".join([title, *lines])
