"""AutoAugment and RandAugment."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from ddf_jax.data.augmentation_config import RandAugmentConfig
from ddf_jax.data.config import Interpolation
from ddf_jax.data.crop import Pixels, to_pillow
from ddf_jax.data.transforms.crops import draw_filter
from ddf_jax.data.transforms.operations import OPERATIONS, Canvas

RAND_AUGMENT = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)
"""The operations of RandAugment."""

IMAGENET_POLICY = (
    (("PosterizeOriginal", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
    (("PosterizeOriginal", 0.6, 7), ("PosterizeOriginal", 0.6, 6)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 4), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 7)),
    (("PosterizeOriginal", 0.8, 5), ("Equalize", 1.0, 2)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 8), ("PosterizeOriginal", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 2)),
    (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 8)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 3)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
)
"""AutoAugment's 25 sub-policies for ImageNet: operation, probability and strength, twice."""


@dataclasses.dataclass(frozen=True)
class RandAugment(grain.transforms.RandomMap):
    """Draws `layers` operations, each with replacement, and applies each with probability 1/2.

    The strength of each is normal around `magnitude` with the standard deviation `magnitude_std`, cut to [0, 10].

    Reference: Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", NeurIPS
    2020; probability, standard deviation and increasing operations are timm's.

    Args:
        config: the recipe's.
        fill: what comes in at the border, for each channel.
        interpolation: between pixels; random: of each operation.
    """

    config: RandAugmentConfig
    fill: tuple[int, ...]
    interpolation: Interpolation = "bilinear"

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        names = _increasing(RAND_AUGMENT) if self.config.increasing else RAND_AUGMENT
        drawn = [names[index] for index in rng.integers(len(names), size=self.config.layers)]
        return element | {
            "image": _applied(element["image"], [(name, 0.5, self._strength) for name in drawn], self, rng)
        }

    def _strength(self, rng: np.random.Generator) -> float:
        return float(np.clip(rng.normal(self.config.magnitude, self.config.magnitude_std), 0.0, 10.0))


@dataclasses.dataclass(frozen=True)
class AutoAugment(grain.transforms.RandomMap):
    """Applies one of the 25 sub-policies of `IMAGENET_POLICY`, all equally likely.

    Reference: Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data", CVPR 2019, Appendix.

    Args:
        fill: what comes in at the border, for each channel.
        interpolation: between pixels; random: of each operation.
    """

    fill: tuple[int, ...]
    interpolation: Interpolation = "bilinear"

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> Any:
        policy = IMAGENET_POLICY[rng.integers(len(IMAGENET_POLICY))]
        steps = [(name, probability, lambda _, strength=strength: strength) for name, probability, strength in policy]
        return element | {"image": _applied(element["image"], steps, self, rng)}


Step = tuple[str, float, Callable[[np.random.Generator], float]]
"""An operation's name, its probability, and what draws its strength."""


def _applied(
    image: Pixels, steps: Sequence[Step], policy: RandAugment | AutoAugment, rng: np.random.Generator
) -> Pixels:
    for name, probability, strength in steps:
        if rng.random() < probability:
            canvas = Canvas(draw_filter(policy.interpolation, rng), policy.fill)
            image = OPERATIONS[name](to_pillow(image), strength(rng), canvas, rng)
    return image


def _increasing(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}Increasing" if f"{name}Increasing" in OPERATIONS else name for name in names)
