"""Faster R-CNN with RedNet-50 and involution in the neck on COCO; otherwise `coco_faster_rcnn_resnet50`.

Command:   ddf train coco_faster_rcnn_rednet50
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  40.2 % box AP (Li et al., Involution, CVPR 2021; their repository); not yet run here
Weights:   of a RedNet-50, whose stem has a 3×3 involution. That of the repository's detectors has a 7×7 one, for which
           `--model.options stem_kernel_size=7` needs the weights of a classifier that has it, too
Recipe:    2000 steps of warm-up. With involution in the head, too (39.2 %), the repository clips gradients:
           `--model.options head=involution --optimizer.clip-norm 5`
"""

import dataclasses

from ddf_jax.recipes.coco_faster_rcnn_resnet50 import STEPS
from ddf_jax.recipes.coco_faster_rcnn_resnet50 import recipe as base
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    base,
    name="coco_faster_rcnn_rednet50",
    model=ModelConfig("faster_rcnn_rednet50", {"neck": "involution"}),
    optimizer=dataclasses.replace(base.optimizer, warmup_epochs=2000 / STEPS),
)
