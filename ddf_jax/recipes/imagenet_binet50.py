"""BiNet-50 (dc) on ImageNet, as the paper trains it.

Command:   ddf train imagenet_binet50
Hardware:  8 H200 (`ddf plan imagenet_binet50` shows what each of them holds)
Time:      not yet run
Expected:  78.8 % top-1 (Hu et al., 2022, Table 1); not yet run here
Recipe:    that of `imagenet_ddf_resnet50` for 130 epochs without a stated warm-up
"""

import dataclasses

from ddf_jax.recipes.imagenet_ddf_resnet50 import recipe as ddf

recipe = dataclasses.replace(
    ddf,
    name="imagenet_binet50",
    model=dataclasses.replace(ddf.model, name="binet50"),
    optimizer=dataclasses.replace(ddf.optimizer, warmup_epochs=0),
    epochs=130,
)
