"""A small DDF-ResNet on 1,797 real handwritten digits, trained in a minute.

Command:   ddf train digits
Hardware:  2 CPU cores
Time:      about a minute (`experiments/results/digits.json` has the measured one)
Expected:  test accuracy ≥ 97.5 % (an image of the 360 is 0.3 %); measured on this recipe's own runs, no paper
           trains on these images
Recipe:    SGD with Nesterov momentum, 0.2 per 256 examples, cosine, batch 64, label smoothing 0.1, images
           rotated, scaled and shifted a little
"""

from ddf_jax.data.config import DataConfig
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.classification import Classification

recipe = Recipe(
    name="digits",
    # Three stages of one block: 8×8 pixels leave no room for a fourth.
    model=ModelConfig("ddf_resnet18", {"stem": "small", "width": 32, "blocks": (1, 1, 1), "zero_init_last_norm": True}),
    data=DataConfig(dataset="digits", image_size=8, augment="affine"),
    optimizer=OptimizerConfig(learning_rate=0.2, warmup_epochs=2, nesterov=True, weight_decay=5e-4),
    task=Classification(label_smoothing=0.1),
    epochs=50,
    batch_size=64,
    seed=1,
    evaluate_every=10,
    checkpoint_every=10,
)
