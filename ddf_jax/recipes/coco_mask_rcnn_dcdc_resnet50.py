"""Mask R-CNN with DCDC-ResNet-50 and DCDC in the neck on COCO; otherwise `coco_mask_rcnn_resnet50`.

Command:   ddf train coco_mask_rcnn_dcdc_resnet50
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  41.7 % box AP, 37.1 % mask AP (Yan et al., DCDC, Table VI); not yet run here
"""

import dataclasses

from ddf_jax.recipes.coco_mask_rcnn_resnet50 import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="coco_mask_rcnn_dcdc_resnet50",
    model=ModelConfig("mask_rcnn_dcdc_resnet50", {"neck": "dcdc"}),
)
