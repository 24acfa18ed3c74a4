"""Joint depth upsampling by 4 on rendered rooms, small and short.

Command:   ddf train joint_depth_4x
Hardware:  2 CPU cores
Time:      about six minutes (`experiments/results/depth/depth.json` has the measured one)
Expected:  the RMSE in `experiments/results/depth/depth.md`; measured on that run, no paper trains on these images
Recipe:    Adam, cosine, batch 8, crops of 64×64, a fifth of them with holes in the input, a loss that large errors do
           not dominate at first and that ends near the mean square. The published network adds a residual, upsampled in
           two steps, to upsampled depth. This one works at the depth's resolution: it generates spatial dynamic
           filters, a convex combination of the valid neighbours (`ddf_jax.models.depth_filters`), and a correction
"""

from ddf_jax.data.config import DataConfig
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling

FILTERS = {"layout": "filters", "channels": 64, "blocks": 3, "iterations": 16}

recipe = Recipe(
    name="joint_depth_4x",
    model=ModelConfig("ddf_up_net", FILTERS),
    data=DataConfig(dataset="rooms", image_size=64, augment="holes"),
    # 0.003 for a batch of 8.
    optimizer=OptimizerConfig(method="adam", learning_rate=0.003 * 256 / 8, warmup_epochs=0.5, weight_decay=0.0),
    task=DepthUpsampling(scale=4, loss="charbonnier"),
    epochs=26,
    batch_size=8,
    evaluate_every=13,
    checkpoint_every=13,
)
