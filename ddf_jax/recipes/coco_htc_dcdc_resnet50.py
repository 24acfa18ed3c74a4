"""Hybrid Task Cascade with DCDC-ResNet-50 and DCDC in the neck on COCO; otherwise `coco_mask_rcnn_resnet50`.

Command:   ddf train coco_htc_dcdc_resnet50
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  46.1 % box AP, 40.6 % mask AP (Yan et al., DCDC, Table VI); not yet run here
Data:      with `annotations/panoptic_{train,val}2017.json` and their PNG files. The semantic branch learns their 133
           classes; MMDetection's learns the 183 of COCO-Stuff
Recipe:    20 epochs, a tenth after 16 and 19
"""

import dataclasses

from ddf_jax.recipes.coco_faster_rcnn_resnet50 import SIZES
from ddf_jax.recipes.coco_mask_rcnn_resnet50 import recipe as base
from ddf_jax.training.recipe import ModelConfig
from ddf_jax.training.tasks.detection import Detection

recipe = dataclasses.replace(
    base,
    name="coco_htc_dcdc_resnet50",
    model=ModelConfig("htc_dcdc_resnet50", {"neck": "dcdc"}),
    optimizer=dataclasses.replace(base.optimizer, drops=(16, 19)),
    task=Detection(masks=True, semantic=True, **SIZES),
    epochs=20,
)
