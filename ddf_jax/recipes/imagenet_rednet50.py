"""RedNet-50 on ImageNet, as its authors train it.

Command:   ddf train imagenet_rednet50
Hardware:  8 H200 (`ddf plan imagenet_rednet50` shows what each of them holds)
Time:      not yet run
Expected:  78.4 % top-1 (Li et al., CVPR 2021, as Yan et al., 2022, Table I, have it); not yet run here
Recipe:    130 epochs of SGD with Nesterov momentum 0.9, 0.8 for a batch of 2048, cosine, weight decay 1e-4
"""

import dataclasses

from ddf_jax.recipes.imagenet_ddf_resnet50 import recipe as ddf

recipe = dataclasses.replace(
    ddf,
    name="imagenet_rednet50",
    model=dataclasses.replace(ddf.model, name="rednet50"),
    optimizer=dataclasses.replace(ddf.optimizer, nesterov=True, end_learning_rate=0.0),
    epochs=130,
    batch_size=2048,
)
