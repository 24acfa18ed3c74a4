"""Panoptic FPN with the backbone and the pyramid of `rooms_mask_rcnn`: walls, floor and ceiling too.

Command:   ddf train rooms_panoptic_fpn
Hardware:  2 CPU cores
Time:      8 minutes, partly next to another training
Expected:  19 % panoptic quality
Recipe:    that of `rooms_mask_rcnn`
"""

import dataclasses

from ddf_jax.recipes.rooms_mask_rcnn import DDF, DETECTOR, SIZES
from ddf_jax.recipes.rooms_mask_rcnn import recipe as base
from ddf_jax.training.recipe import ModelConfig
from ddf_jax.training.tasks.panoptic import Panoptic

# A weak detection costs little average precision, but covers what lies below it. Chosen on the validation rooms.
REGIONS = DETECTOR["regions"] | {"detection": {"score": 0.25}}

recipe = dataclasses.replace(
    base,
    name="rooms_panoptic_fpn",
    model=ModelConfig("panoptic_fpn_ddf_resnet50", DETECTOR | DDF | {"regions": REGIONS, "semantic_channels": 32}),
    task=Panoptic(stuff_area=64, **SIZES),
)
