"""`joint_depth_4x` by 16 instead of 4.

Command:   ddf train joint_depth_16x
Hardware:  2 CPU cores
Time:      four minutes (`experiments/results/depth/depth_16x.json` has the measured one)
Expected:  the RMSE in `experiments/results/depth/depth_16x.md`
"""

import dataclasses

from ddf_jax.recipes.joint_depth_4x import recipe as base
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling

recipe = dataclasses.replace(base, name="joint_depth_16x", task=DepthUpsampling(scale=16, loss="charbonnier"))
