"""`joint_depth_4x` with deep joint filtering as its network, which adds a residual to joint bilateral upsampling.

Command:   ddf train joint_depth_4x_djf
Hardware:  2 CPU cores
Time:      not measured
Expected:  not yet run
"""

import dataclasses

from ddf_jax.recipes.joint_depth_4x import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="joint_depth_4x_djf",
    model=ModelConfig("djf", {"widths": (16, 8, 1), "joint_widths": (16, 8), "base": "joint_bilateral"}),
)
