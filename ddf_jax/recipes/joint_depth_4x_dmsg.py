"""`joint_depth_4x` with the multi-scale guided network DMSG, with half of its channels.

Command:   ddf train joint_depth_4x_dmsg
Hardware:  2 CPU cores
Time:      not measured on an idle machine (`experiments/results/depth/depth.json` has that of a busy one)
Expected:  the RMSE in `experiments/results/depth/depth.md`
"""

import dataclasses

from ddf_jax.recipes.joint_depth_4x import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="joint_depth_4x_dmsg",
    model=ModelConfig("dmsg", {"channels": 16, "depth_channels": 32, "image_channels": 16}),
)
