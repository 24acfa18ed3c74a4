"""`joint_depth_4x_djf` with three feature maps of depth and of the image instead of one.

Command:   ddf train joint_depth_4x_djf_plus
Hardware:  2 CPU cores
Time:      not measured on an idle machine (`experiments/results/depth/depth.json` has that of a busy one)
Expected:  the RMSE in `experiments/results/depth/depth.md`
"""

import dataclasses

from ddf_jax.recipes.joint_depth_4x_djf import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="joint_depth_4x_djf_plus",
    model=ModelConfig("djf_plus", {"widths": (16, 8, 3), "joint_widths": (16, 8), "base": "joint_bilateral"}),
)
