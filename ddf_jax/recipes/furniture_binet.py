"""The BiNet (dc-ca) of `make robustness`: `furniture_resnet` with Bi-volution on DDF in place of its 3×3 convolutions.

Command:   ddf train furniture_binet
Hardware:  2 CPU cores
Time:      6 minutes next to another training
Expected:  test accuracy 91.8 %; its source is this recipe's own run
"""

import dataclasses

from ddf_jax.recipes.furniture_resnet import recipe as furniture_resnet

recipe = dataclasses.replace(
    furniture_resnet,
    name="furniture_binet",
    model=dataclasses.replace(furniture_resnet.model, name="binet50_dc_ca"),
)
