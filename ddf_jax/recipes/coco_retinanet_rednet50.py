"""RetinaNet with RedNet-50 and involution in the neck on COCO; otherwise `coco_faster_rcnn_resnet50`.

Command:   ddf train coco_retinanet_rednet50
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  38.2 % box AP (Li et al., Involution, CVPR 2021; their repository); not yet run here
Weights:   as for `coco_faster_rcnn_rednet50`
Recipe:    0.01 for 16 images, 2000 steps of warm-up, gradients clipped to a norm of 40
"""

import dataclasses

from ddf_jax.recipes.coco_faster_rcnn_resnet50 import STEPS
from ddf_jax.recipes.coco_faster_rcnn_resnet50 import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="coco_retinanet_rednet50",
    model=ModelConfig("retinanet_rednet50", {"neck": "involution"}),
    optimizer=dataclasses.replace(
        base.optimizer, learning_rate=0.01 * 256 / 16, warmup_epochs=2000 / STEPS, clip_norm=40.0
    ),
)
