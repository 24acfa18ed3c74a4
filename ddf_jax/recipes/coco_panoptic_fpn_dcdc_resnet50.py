"""Panoptic FPN with DCDC-ResNet-50 and DCDC in the neck on COCO; otherwise `coco_mask_rcnn_resnet50`.

Command:   ddf train coco_panoptic_fpn_dcdc_resnet50
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  43.3 % PQ (Yan et al., DCDC, Table VII); not yet run here
Data:      with `annotations/panoptic_{train,val}2017.json` and their PNG files
"""

import dataclasses

from ddf_jax.recipes.coco_faster_rcnn_resnet50 import SIZES
from ddf_jax.recipes.coco_mask_rcnn_resnet50 import recipe as base
from ddf_jax.training.recipe import ModelConfig
from ddf_jax.training.tasks.panoptic import Panoptic

recipe = dataclasses.replace(
    base,
    name="coco_panoptic_fpn_dcdc_resnet50",
    model=ModelConfig("panoptic_fpn_dcdc_resnet50", {"neck": "dcdc"}),
    task=Panoptic(**SIZES),
)
