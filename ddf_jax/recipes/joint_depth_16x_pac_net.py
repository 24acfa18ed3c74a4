"""`joint_depth_4x_pac_net` by 16 instead of 4.

Command:   ddf train joint_depth_16x_pac_net
Hardware:  2 CPU cores
Time:      not measured on an idle machine (`experiments/results/depth/depth_16x.json` has that of a busy one)
Expected:  the RMSE in `experiments/results/depth/depth_16x.md`
"""

import dataclasses

from ddf_jax.recipes.joint_depth_4x_pac_net import recipe as base
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling

recipe = dataclasses.replace(base, name="joint_depth_16x_pac_net", task=DepthUpsampling(scale=16, loss="charbonnier"))
