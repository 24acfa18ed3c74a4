"""The kinds of examples of the shipped tasks: images with a class label, with depth, or with objects."""

import dataclasses
from typing import Any, Literal

import grain
import numpy as np

from ddf_jax.data.canvas import check_canvas
from ddf_jax.data.coco_folder import CocoInstances, CocoOptions
from ddf_jax.data.coco_layout import has_annotations
from ddf_jax.data.coco_panoptic import CocoPanoptic
from ddf_jax.data.config import LABELLED_OPTIONS, DataConfig
from ddf_jax.data.depth_source import DepthSource
from ddf_jax.data.depth_transforms import Downsample, depth_training_transforms
from ddf_jax.data.detection_source import DetectionSource, Labels
from ddf_jax.data.detection_transforms import LargeScaleJitter, PadObjects, RandomFlip, ResizeToFit
from ddf_jax.data.groups import Group
from ddf_jax.data.image_folder import ImageFolder
from ddf_jax.data.sources import Source, Split
from ddf_jax.data.tfds_detection import TfdsDetection
from ddf_jax.data.tfds_source import TfdsSource
from ddf_jax.data.transforms import Normalize, evaluation_transforms, training_transforms
from ddf_jax.errors import UserError

Transforms = list[grain.transforms.Transformation]


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """`{"image": float32 [H, W, C], "label": int32}` from a TFDS classification dataset or a folder of images."""

    def open(self, config: DataConfig, split: Split) -> Source:
        if config.folder is not None:
            names = (config.train_split, config.eval_split)
            return ImageFolder(config.folder, split, config.max_corrupt_share, config.decoding, names)
        _check_dataset(config)
        return TfdsSource(config.dataset, _tfds_split(config, split), config.data_dir, config.decoding)

    def training(self, config: DataConfig, source: Source) -> Transforms:
        return training_transforms(config, source.channels)

    def evaluation(self, config: DataConfig, source: Source) -> Transforms:
        return [*evaluation_transforms(config, source.channels)]

    def blank(self, config: DataConfig, source: Source) -> dict[str, Any]:
        image = np.zeros((config.eval_size, config.eval_size, source.channels), np.uint8)
        return {"image": image, "label": np.int32(0)}


@dataclasses.dataclass(frozen=True)
class DepthImages:
    """`{"image": float32 [H, W, 3], "low": float32 [⌈H/S⌉, ⌈W/S⌉, 1], "depth": float32 [H, W, 1]}` from a TFDS dataset.

    Args:
        scale: S, how many times lower in each direction the resolution of `low` is.
    """

    scale: int

    def open(self, config: DataConfig, split: Split) -> DepthSource:
        if config.folder is not None:
            raise UserError(f"Depth must come from a `dataset`, such as rooms, got the `folder` {config.folder}.")
        _check_dataset(config)
        return DepthSource(config.dataset, _tfds_split(config, split), config.data_dir, config.decoding)

    def training(self, config: DataConfig, source: DepthSource) -> Transforms:
        _check_labelled_options(config)
        return depth_training_transforms(config, source.shape, self.scale)

    def evaluation(self, config: DataConfig, source: DepthSource) -> Transforms:
        del config, source
        return [Downsample(self.scale)]

    def blank(self, config: DataConfig, source: DepthSource) -> dict[str, Any]:
        del config
        return {"image": np.zeros((*source.shape, 3), np.uint8), "depth": np.zeros(source.shape, np.float32)}


@dataclasses.dataclass(frozen=True)
class DetectionImages:
    """Images on a canvas with their objects, as `PadObjects` describes them, from a TFDS dataset or a COCO folder.

    Evaluation has neither `masks` nor `semantic`: scores are of the source's `truth` and `segments`, in its own pixels.

    Args:
        canvas: height and width of the arrays, multiples of 32.
        short_side: the most that the shorter side of an image may have; default: that of the canvas.
        long_side: likewise the longer side.
        max_objects: M, the number of objects that an example has room for.
        masks: whether training examples have the objects' masks.
        semantic: whether they have a map of classes: of stuff, or of all classes (`Labels`).
        empty_images: whether images of a folder without an annotation, and very small ones, are trained on.
        upright: whether images that are higher than wide have a canvas with the sides exchanged, and batches of theirs.
    """

    canvas: tuple[int, int] = (800, 1344)
    short_side: int | None = None
    long_side: int | None = None
    max_objects: int = 100
    masks: bool = False
    semantic: Literal["stuff", "all"] | None = None
    empty_images: bool = False
    upright: bool = False

    def __post_init__(self) -> None:
        sides = {"short_side": self.short_side, "long_side": self.long_side}
        check_canvas(self.canvas, upright=self.upright, max_objects=self.max_objects, **sides)
        if self.semantic not in (None, "stuff", "all"):
            raise UserError(f"`semantic` must be None, stuff or all, got {self.semantic!r}.")

    def open(self, config: DataConfig, split: Split) -> DetectionSource:
        labels = Labels(self.masks, self.semantic, truth_only=split == "eval")
        if config.folder is not None:
            names = (config.train_split, config.eval_split)
            options = CocoOptions(names, config.max_corrupt_share, self.empty_images, config.decoding)
            has_instances, has_panoptic = (has_annotations(config.folder, kind) for kind in ("instances", "panoptic"))
            panoptic = self.semantic is not None or (has_panoptic and not has_instances)
            return (CocoPanoptic if panoptic else CocoInstances)(config.folder, split, labels, options)
        _check_dataset(config)
        return TfdsDetection(config.dataset, _tfds_split(config, split), config.data_dir, labels, config.decoding)

    def groups(self, source: DetectionSource) -> list[Group]:
        if not self.upright:
            return [Group(self, None)]
        height, width = source.sizes.T
        lying = dataclasses.replace(self, upright=False)
        turned = dataclasses.replace(lying, canvas=self.canvas[::-1])
        places = {lying: np.flatnonzero(height <= width), turned: np.flatnonzero(height > width)}
        return [Group(examples, of) for examples, of in places.items() if len(of)]

    def training(self, config: DataConfig, source: DetectionSource) -> Transforms:
        _check_labelled_options(config)
        augment: dict[str, Transforms] = {
            "none": [self._resize()],
            "flip": [self._resize(), RandomFlip()],
            "jitter": [LargeScaleJitter(self.canvas), RandomFlip()],
        }
        if config.augment not in augment:
            raise UserError(f"`augment` must be one of {', '.join(augment)} for detection, got {config.augment!r}.")
        return [*augment[config.augment], Normalize(source.channels), PadObjects(self.canvas, self.max_objects)]

    def evaluation(self, config: DataConfig, source: DetectionSource) -> Transforms:
        del config
        return [*self.evaluation_transforms(source.channels)]

    def blank(self, config: DataConfig, source: DetectionSource) -> dict[str, Any]:
        del config
        return unlabelled(np.zeros((*self.canvas, source.channels), np.uint8))

    def evaluation_transforms(self, channels: int) -> list[grain.transforms.Map]:
        """From an image, as a source with so many channels gives it, to the arrays of evaluation."""
        return [self._resize(), Normalize(channels), PadObjects(self.canvas, self.max_objects)]

    def _resize(self) -> ResizeToFit:
        return ResizeToFit(self.short_side or min(self.canvas), self.long_side or max(self.canvas), self.canvas)


def unlabelled(image: np.ndarray) -> dict[str, Any]:
    """An image, uint8 [H, W, 3], as a detection source would give it: without objects, its `image_id` -1."""
    boxes, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
    return {"image": image, "image_id": np.int32(-1), "boxes": boxes, "labels": labels}


def _tfds_split(config: DataConfig, split: Split) -> str:
    return config.train_split if split == "train" else config.eval_split


def _check_labelled_options(config: DataConfig) -> None:
    default = DataConfig()
    for name in LABELLED_OPTIONS:
        if (found := getattr(config, name)) != getattr(default, name):
            raise UserError(f"`data.{name}` must be left out: it is for images with one label each, got {found}.")


def _check_dataset(config: DataConfig) -> None:
    if config.sample_max is not None:
        raise UserError(
            f"`data.sample_max` must be left out with a `dataset`, whose images have 8 bits, got {config.sample_max}."
        )
