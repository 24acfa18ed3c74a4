"""The ResNeXt of `make robustness`: `furniture_resnet` with 3×3 convolutions twice as wide, in 32 groups.

Command:   ddf train furniture_resnext
Hardware:  2 CPU cores
Time:      5 minutes next to another training
Expected:  test accuracy 93.8 %; its source is this recipe's own run
"""

import dataclasses

from ddf_jax.recipes.furniture_resnet import recipe as furniture_resnet

recipe = dataclasses.replace(
    furniture_resnet,
    name="furniture_resnext",
    model=dataclasses.replace(furniture_resnet.model, name="resnext50_32x4d"),
)
