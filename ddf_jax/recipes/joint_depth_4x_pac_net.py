"""`joint_depth_4x` with pixel-adaptive filters, the Gaussians of PAC-Net, instead of generated ones.

Command:   ddf train joint_depth_4x_pac_net
Hardware:  2 CPU cores
Time:      a few minutes (`experiments/results/depth/depth.json` has the measured one)
Expected:  the RMSE in `experiments/results/depth/depth.md`
"""

import dataclasses

from ddf_jax.recipes.joint_depth_4x import FILTERS
from ddf_jax.recipes.joint_depth_4x import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(base, name="joint_depth_4x_pac_net", model=ModelConfig("pac_net", FILTERS))
