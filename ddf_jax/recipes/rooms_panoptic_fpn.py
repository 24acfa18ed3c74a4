"""Panoptic FPN with the backbone and the pyramid of `rooms_mask_rcnn`: walls, floor and ceiling too.

Command:   ddf train rooms_panoptic_fpn
Hardware:  2 CPU cores
Time:      about six minutes (`experiments/results/detection/rooms_panoptic.json` has the measured one)
Expected:  the scores in `experiments/results/detection/rooms_panoptic.md`
Recipe:    that of `rooms_mask_rcnn`
"""

import dataclasses

from ddf_jax.recipes.rooms_mask_rcnn import DDF, DETECTOR, SIZES
from ddf_jax.recipes.rooms_mask_rcnn import recipe as base
from ddf_jax.training.recipe import ModelConfig
from ddf_jax.training.tasks.panoptic import Panoptic

recipe = dataclasses.replace(
    base,
    name="rooms_panoptic_fpn",
    model=ModelConfig("panoptic_fpn_ddf_resnet50", DETECTOR | DDF | {"semantic_channels": 32}),
    task=Panoptic(stuff_area=64, **SIZES),
)
