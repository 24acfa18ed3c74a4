"""Faster R-CNN with ResNet-50 and DDF-Up in the pyramid on COCO; otherwise `coco_faster_rcnn_resnet50`.

Command:   ddf train coco_faster_rcnn_ddf_up
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  38.6 % box AP (Zhou et al., CVPR 2021, Table 6); not yet run here
Recipe:    that of its base, 0.02 for 16 images with a momentum of 0.9, as in MMDetection's protocol, which the paper
           follows. The paper prints 0.2 with a momentum of 0.1, whose steps add up to about the same: 0.2 / (1 - 0.1)
           is 0.22, and 0.02 / (1 - 0.9) is 0.2. The table's other rows: `--model.options upsampler=carafe` (38.5 %),
           pixel_shuffle (37.7 %), bilinear (37.6 %), deconvolution (37.3 %)
"""

import dataclasses

from ddf_jax.recipes.coco_faster_rcnn_resnet50 import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="coco_faster_rcnn_ddf_up",
    model=ModelConfig("faster_rcnn_resnet50", {"upsampler": "ddf_up"}),
)
