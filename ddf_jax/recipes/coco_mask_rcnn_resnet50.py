"""Mask R-CNN with ResNet-50 on COCO: `coco_faster_rcnn_resnet50` with masks.

Command:   ddf train coco_mask_rcnn_resnet50
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  38.4 % box AP, 35.1 % mask AP (Yan et al., DCDC, Table VI); not yet run here
"""

import dataclasses

from ddf_jax.recipes.coco_faster_rcnn_resnet50 import SIZES
from ddf_jax.recipes.coco_faster_rcnn_resnet50 import recipe as base
from ddf_jax.training.recipe import ModelConfig
from ddf_jax.training.tasks.detection import Detection

recipe = dataclasses.replace(
    base,
    name="coco_mask_rcnn_resnet50",
    model=ModelConfig("mask_rcnn_resnet50"),
    task=Detection(masks=True, **SIZES),
)
