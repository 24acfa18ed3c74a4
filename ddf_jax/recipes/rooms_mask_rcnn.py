"""Mask R-CNN with a small DDF backbone and DDF-Up in its pyramid, on rendered rooms, small and short.

Command:   ddf train rooms_mask_rcnn
Hardware:  2 CPU cores
Time:      13 minutes next to another training, 20 for the three runs of `make detect` and their data
Expected:  14 % box AP50, 7 % mask AP50; no paper trains on these images. The training is unfinished: the losses still
           fall when the time is up
Recipe:    Adam, cosine, batch 4, flips. Anchors are smaller than COCO's, and one of the ratios is of poles. More
           anchors and regions count as found than on COCO (IoUs of 0.5 and 0.4), as there are few objects and little
           time
"""

from typing import Any

from ddf_jax.data.config import DataConfig
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.detection import Detection

SIZES: dict[str, Any] = {"canvas": (128, 160), "max_objects": 24}
DETECTOR: dict[str, Any] = {
    "backbone_options": {"width": 32, "blocks": (1, 1, 1, 1)},
    "channels": 32,
    "rpn": {
        "anchors": {"scales": (3.0,), "ratios": (0.5, 1.0, 2.0, 4.0)},
        "matcher": {"positive": 0.5, "negative": 0.3, "least": 0.3},
        "sampler": {"count": 128},
        "training": {"before_nms": 150, "count": 96},
        "evaluation": {"before_nms": 200, "count": 100},
    },
    "regions": {
        "matcher": {"positive": 0.4, "negative": 0.4, "least": 0.4},
        "sampler": {"count": 64},
        "detection": {"score": 0.01},
        "hidden": 128,
        "mask_depth": 1,
    },
}
DDF = {"backbone": "ddf_resnet18", "upsampler": "ddf_up"}

recipe = Recipe(
    name="rooms_mask_rcnn",
    model=ModelConfig("mask_rcnn_ddf_resnet50", DETECTOR | DDF),
    data=DataConfig(dataset="rooms_panoptic", augment="flip"),
    # 0.002 for a batch of 4.
    optimizer=OptimizerConfig(method="adam", learning_rate=0.002 * 256 / 4, warmup_epochs=0.3, weight_decay=0.0),
    task=Detection(masks=True, **SIZES),
    epochs=3.2,
    batch_size=4,
    evaluate_every=0,  # at the end alone
    checkpoint_every=1.6,
)
