"""Labelled images whose evaluation pictures are corrupted, each by its own noise, the same at every evaluation."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from ddf_jax.data.config import DataConfig
from ddf_jax.data.corruptions import corrupt
from ddf_jax.data.sources import Examples, Source, Split, open_source
from ddf_jax.data.transforms import Normalize


@dataclasses.dataclass(frozen=True)
class Corrupt(grain.transforms.MapWithIndex):
    """`ddf_jax.data.corruptions.corrupt` of the picture, whose index is the example's place in its set."""

    corruption: str
    severity: int
    seed: int = 0

    def map_with_index(self, index: int, element: dict[str, Any]) -> Any:
        image = np.ascontiguousarray(element["image"])
        return element | {"image": corrupt(image, self.corruption, self.severity, seed=self.seed, index=index)}


@dataclasses.dataclass(frozen=True)
class CorruptedImages:
    """`examples`, in evaluation with a corruption of the picture as it is cropped and resized, before `Normalize`.

    Args:
        examples: images with a label.
        corruption: one of `ddf_jax.data.corruptions.FAMILIES`.
        severity: 1 to 5.
        seed: of what is random in the corruptions.
    """

    examples: Examples
    corruption: str
    severity: int
    seed: int = 0

    def open(self, config: DataConfig, split: Split) -> Source:
        return open_source(config, self.examples, split)  # once for all corruptions

    def training(self, config: DataConfig, source: Source) -> Sequence[Any]:
        return self.examples.training(config, source)

    def evaluation(self, config: DataConfig, source: Source) -> Sequence[Any]:
        transforms = list(self.examples.evaluation(config, source))
        [place] = [index for index, transform in enumerate(transforms) if isinstance(transform, Normalize)]
        transforms.insert(place, Corrupt(self.corruption, self.severity, self.seed))
        return transforms

    def blank(self, config: DataConfig, source: Source) -> dict[str, Any]:
        return self.examples.blank(config, source)
