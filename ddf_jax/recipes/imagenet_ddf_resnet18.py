"""DDF-ResNet-18 on ImageNet, as the paper trains it.

Command:   ddf train imagenet_ddf_resnet18
Hardware:  8 H200 (`ddf plan imagenet_ddf_resnet18` shows what each of them holds)
Time:      not yet run
Expected:  70.6 % top-1 (Zhou et al., CVPR 2021, Table 4); not yet run here
Recipe:    that of `imagenet_ddf_resnet50`
"""

import dataclasses

from ddf_jax.recipes.imagenet_ddf_resnet50 import recipe as ddf

recipe = dataclasses.replace(
    ddf, name="imagenet_ddf_resnet18", model=dataclasses.replace(ddf.model, name="ddf_resnet18")
)
