"""DCDC-ResNet-50 on ImageNet, as the paper trains it.

Command:   ddf train imagenet_dcdc_resnet50
Hardware:  8 H200 (`ddf plan imagenet_dcdc_resnet50` shows what each of them holds)
Time:      not yet run
Expected:  78.9 % top-1 (Yan et al., 2022, Table I); not yet run here
Recipe:    130 epochs of SGD with momentum 0.9, 0.1 for a batch of 256, 5 epochs of warm-up, cosine, weight decay 1e-4
"""

import dataclasses

from ddf_jax.recipes.imagenet_ddf_resnet50 import recipe as ddf

recipe = dataclasses.replace(
    ddf,
    name="imagenet_dcdc_resnet50",
    model=dataclasses.replace(ddf.model, name="dcdc_resnet50"),
    optimizer=dataclasses.replace(ddf.optimizer, end_learning_rate=0.0),
    epochs=130,
    batch_size=256,
)
