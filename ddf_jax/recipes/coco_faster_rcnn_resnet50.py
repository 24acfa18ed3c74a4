"""Faster R-CNN with ResNet-50 on COCO, by the protocol of MMDetection's `1x` schedule.

Command:   ddf train coco_faster_rcnn_resnet50
Hardware:  8 GPUs with 2 images each
Time:      not yet run
Expected:  37.7 % box AP (Yan et al., DCDC, Table V; MMDetection's own is 37.4 %); not yet run here
Data:      COCO 2017 in `coco/`, or `--data.folder`: `annotations/instances_{train,val}2017.json`, `{train,val}2017/`
Weights:   of a classifier with this backbone, trained on ImageNet: `--init-from RUN|FILE`. Its stem, first stage and
           BatchNorm statistics stay as they are, so that the run ends at once without it
Recipe:    SGD, 0.02 for 16 images, a tenth after epochs 8 and 11 of 12, 500 steps of linear warm-up from a thousandth,
           images of at most 800×1333 or, upright ones, 1333×800, flipped. A batch has images of one orientation
"""

from pathlib import Path
from typing import Any

from ddf_jax.data.config import DataConfig
from ddf_jax.detection.frozen import FROZEN
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.detection import Detection

STEPS = 117_266 / 16
"""Of an epoch over the images that have objects."""

SIZES: dict[str, Any] = {"canvas": (800, 1344), "upright": True, "short_side": 800, "long_side": 1333}
"""Of images."""

recipe = Recipe(
    name="coco_faster_rcnn_resnet50",
    model=ModelConfig("faster_rcnn_resnet50"),
    data=DataConfig(folder=Path("coco"), eval_split="val", augment="flip", workers=8),
    optimizer=OptimizerConfig(
        learning_rate=0.02 * 256 / 16, drops=(8, 11), warmup_epochs=500 / STEPS, warmup_start=0.001
    ),
    task=Detection(**SIZES),
    epochs=12,
    batch_size=16,
    freeze=FROZEN,
)
