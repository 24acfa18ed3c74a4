"""Mask R-CNN with RedNet-50 and involution in the neck on COCO; otherwise `coco_mask_rcnn_resnet50`.

Command:   ddf train coco_mask_rcnn_rednet50
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  40.8 % box AP, 36.4 % mask AP (Li et al., Involution, CVPR 2021; their repository); not yet run here
Weights:   as for `coco_faster_rcnn_rednet50`
Recipe:    2000 steps of warm-up
"""

import dataclasses

from ddf_jax.recipes.coco_faster_rcnn_resnet50 import STEPS
from ddf_jax.recipes.coco_mask_rcnn_resnet50 import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="coco_mask_rcnn_rednet50",
    model=ModelConfig("mask_rcnn_rednet50", {"neck": "involution"}),
    optimizer=dataclasses.replace(base.optimizer, warmup_epochs=2000 / STEPS),
)
