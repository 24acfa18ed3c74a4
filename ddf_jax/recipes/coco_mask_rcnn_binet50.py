"""Mask R-CNN with BiNet-50 (dc) on COCO; otherwise `coco_mask_rcnn_resnet50`.

Command:   ddf train coco_mask_rcnn_binet50
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  40.6 % box AP, 36.4 % mask AP (Hu et al., Bi-volution, Table 2); not yet run here
Recipe:    the weight decay is 1e-5, as the paper prints
"""

import dataclasses

from ddf_jax.recipes.coco_mask_rcnn_resnet50 import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="coco_mask_rcnn_binet50",
    model=ModelConfig("mask_rcnn_binet50"),
    optimizer=dataclasses.replace(base.optimizer, weight_decay=1e-5),
)
