"""A small ResNet of bottlenecks on rendered furniture, the baseline of `make robustness`.

Command:   ddf train furniture_resnet
Hardware:  2 CPU cores
Time:      3 minutes next to another training
Expected:  test accuracy 92.5 %; its source is this recipe's own run
Recipe:    AdamW, 0.024 per 256 examples, cosine, batch 32, label smoothing 0.1, images rotated, scaled and shifted a
           little
"""

from ddf_jax.data.config import DataConfig
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.classification import Classification

recipe = Recipe(
    name="furniture_resnet",
    model=ModelConfig("resnet50", {"width": 16, "blocks": (1, 2, 2), "zero_init_last_norm": True}),
    data=DataConfig(dataset="furniture", image_size=64, augment="affine"),
    optimizer=OptimizerConfig(method="adamw", learning_rate=0.024, warmup_epochs=0.25, weight_decay=0.02),
    task=Classification(label_smoothing=0.1),
    epochs=6,
    batch_size=32,
    seed=1,
    evaluate_every=3,
    checkpoint_every=3,
)
