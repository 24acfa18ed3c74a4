"""DDF-ResNet-50 on ImageNet, as the paper trains it.

Command:   ddf train imagenet_ddf_resnet50
Hardware:  8 H200 (`ddf plan imagenet_ddf_resnet50` shows what each of them holds)
Time:      not yet run
Expected:  79.1 % top-1 (Zhou et al., CVPR 2021, Table 3c); not yet run here
Recipe:    120 epochs of SGD with momentum 0.9, 0.1 per 256 examples, 5 epochs of warm-up, cosine to 1e-5, weight decay
           1e-4, global batch 1024
"""

from ddf_jax.data.config import DataConfig
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe

recipe = Recipe(
    name="imagenet_ddf_resnet50",
    model=ModelConfig("ddf_resnet50"),
    data=DataConfig(dataset="imagenet2012", eval_split="validation", image_size=224, augment="imagenet", workers=16),
    optimizer=OptimizerConfig(learning_rate=0.1, end_learning_rate=1e-5, warmup_epochs=5, weight_decay=1e-4),
    epochs=120,
    batch_size=1024,
    dtype="bfloat16",
)
