"""Faster R-CNN with DCDC-ResNet-50 and DCDC in the neck on COCO; otherwise `coco_faster_rcnn_resnet50`.

Command:   ddf train coco_faster_rcnn_dcdc_resnet50
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  40.9 % box AP (Yan et al., DCDC, Table V); not yet run here
"""

import dataclasses

from ddf_jax.recipes.coco_faster_rcnn_resnet50 import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="coco_faster_rcnn_dcdc_resnet50",
    model=ModelConfig("faster_rcnn_dcdc_resnet50", {"neck": "dcdc"}),
)
