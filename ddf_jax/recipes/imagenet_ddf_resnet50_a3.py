"""DDF-ResNet-50 on ImageNet by a modern recipe, A3 of "ResNet strikes back" (Wightman et al., 2021).

Command:   ddf train imagenet_ddf_resnet50_a3
Hardware:  8 H200 (`ddf plan imagenet_ddf_resnet50_a3` shows what each of them holds)
Time:      not yet run
Expected:  no number is published; ResNet-50 gets 78.1 % top-1 by it (Wightman et al., Table 2); not yet run here
Recipe:    100 epochs of LAMB, 0.008 for a batch of 2048, 5 epochs of warm-up, cosine, weight decay 0.02; binary cross
           entropy; mixup 0.1, CutMix 1.0, RandAugment 6; images of 160², tests of 224² that see 95 % of a side
"""

import dataclasses

from ddf_jax.data.augmentation_config import AugmentationConfig, RandAugmentConfig
from ddf_jax.recipes.imagenet_ddf_resnet50 import recipe as ddf
from ddf_jax.training.recipe import OptimizerConfig
from ddf_jax.training.tasks.classification import Classification

recipe = dataclasses.replace(
    ddf,
    name="imagenet_ddf_resnet50_a3",
    data=dataclasses.replace(
        ddf.data,
        image_size=160,
        eval_image_size=224,
        eval_share=0.95,
        interpolation="bicubic",
        augmentation=AugmentationConfig(RandAugmentConfig(layers=2, magnitude=6, magnitude_std=0.5, increasing=True)),
    ),
    optimizer=OptimizerConfig(
        method="lamb",
        learning_rate=0.001,
        end_learning_rate=1e-6,
        warmup_epochs=5,
        weight_decay=0.02,
        decay_norm_and_bias=False,
    ),
    task=Classification(loss="binary_cross_entropy", target_threshold=0.2, mixup=0.1, cutmix=1.0),
    epochs=100,
    batch_size=2048,
)
