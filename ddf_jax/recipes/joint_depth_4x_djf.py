"""`joint_depth_4x` with deep joint filtering as its network, which adds a residual to joint bilateral upsampling.

Command:   ddf train joint_depth_4x_djf
Hardware:  2 CPU cores
Time:      not measured on an idle machine (`experiments/results/depth/depth.json` has that of a busy one)
Expected:  the RMSE in `experiments/results/depth/depth.md`
"""

import dataclasses

from ddf_jax.recipes.joint_depth_4x import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="joint_depth_4x_djf",
    model=ModelConfig("djf", {"widths": (16, 8, 1), "joint_widths": (16, 8), "base": "joint_bilateral"}),
)
