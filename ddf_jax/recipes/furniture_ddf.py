"""The DDF-ResNet of `make robustness`: `furniture_resnet` with DDF in place of its 3×3 convolutions.

Command:   ddf train furniture_ddf
Hardware:  2 CPU cores
Time:      4 minutes next to another training
Expected:  test accuracy 91.5 %; its source is this recipe's own run
"""

import dataclasses

from ddf_jax.recipes.furniture_resnet import recipe as furniture_resnet

recipe = dataclasses.replace(
    furniture_resnet,
    name="furniture_ddf",
    model=dataclasses.replace(furniture_resnet.model, name="ddf_resnet50"),
)
