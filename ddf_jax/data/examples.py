"""The kinds of examples of the shipped tasks: images with a class label, and images with depth."""

import dataclasses
from typing import Any

import grain
import numpy as np

from ddf_jax.data.config import DataConfig
from ddf_jax.data.depth_source import DepthSource
from ddf_jax.data.depth_transforms import Downsample, depth_training_transforms
from ddf_jax.data.image_folder import ImageFolder
from ddf_jax.data.sources import Source, Split
from ddf_jax.data.tfds_source import TfdsSource
from ddf_jax.data.transforms import evaluation_transforms, training_transforms
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
        return [*evaluation_transforms(config.image_size, source.channels)]

    def blank(self, config: DataConfig, source: Source) -> dict[str, Any]:
        image = np.zeros((config.image_size, config.image_size, source.channels), np.uint8)
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
        return depth_training_transforms(config, source.shape, self.scale)

    def evaluation(self, config: DataConfig, source: DepthSource) -> Transforms:
        del config, source
        return [Downsample(self.scale)]

    def blank(self, config: DataConfig, source: DepthSource) -> dict[str, Any]:
        del config
        return {"image": np.zeros((*source.shape, 3), np.uint8), "depth": np.zeros(source.shape, np.float32)}


def _tfds_split(config: DataConfig, split: Split) -> str:
    return config.train_split if split == "train" else config.eval_split


def _check_dataset(config: DataConfig) -> None:
    if config.sample_max is not None:
        raise UserError(
            f"`data.sample_max` must be left out with a `dataset`, whose images have 8 bits, got {config.sample_max}."
        )
