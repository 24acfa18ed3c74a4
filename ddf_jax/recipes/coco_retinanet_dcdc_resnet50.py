"""RetinaNet with DCDC-ResNet-50 and DCDC in the neck on COCO; otherwise `coco_faster_rcnn_resnet50`.

Command:   ddf train coco_retinanet_dcdc_resnet50
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  39.5 % box AP (Yan et al., DCDC, Table V); not yet run here
Recipe:    0.01 for 16 images
"""

import dataclasses

from ddf_jax.recipes.coco_faster_rcnn_resnet50 import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="coco_retinanet_dcdc_resnet50",
    model=ModelConfig("retinanet_dcdc_resnet50", {"neck": "dcdc"}),
    optimizer=dataclasses.replace(base.optimizer, learning_rate=0.01 * 256 / 16),
)
