"""`joint_depth_4x_djf` with three feature maps of depth and of the image instead of one.

Command:   ddf train joint_depth_4x_djf_plus
Hardware:  2 CPU cores
Time:      not measured
Expected:  not yet run
"""

import dataclasses

from ddf_jax.recipes.joint_depth_4x_djf import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="joint_depth_4x_djf_plus",
    model=ModelConfig("djf_plus", {"widths": (16, 8, 3), "joint_widths": (16, 8), "base": "joint_bilateral"}),
)
