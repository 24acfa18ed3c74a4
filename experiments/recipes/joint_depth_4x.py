"""Joint depth upsampling by 4 on rendered rooms, small and short.

Command:   ddf train joint_depth_4x
Hardware:  2 CPU cores
Time:      a few minutes (`experiments/results/depth/depth.json` has the measured one)
Expected:  the RMSE in `experiments/results/depth/depth.md`; its source is that run, no paper trains on these pictures
Recipe:    Adam, cosine, batch 8, crops of 64×64, a fifth of them with holes in the input; the network is narrower than
           the published one, with 3×3 convolutions, and its steps also carry up the depth itself, which it adds to
"""

from ddf_jax.data.config import DataConfig
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe

SMALL = {"channels": 16, "guidance_channels": 8, "kernel_size": 3, "base": "steps"}

recipe = Recipe(
    name="joint_depth_4x",
    model=ModelConfig("ddf_up_net", {**SMALL, "heads": 4}),
    data=DataConfig(dataset="rooms", target="depth", scale=4, image_size=64, augment="holes"),
    # 0.004 for a batch of 8.
    optimizer=OptimizerConfig(method="adam", learning_rate=0.004 * 256 / 8, warmup_epochs=1, weight_decay=0.0),
    epochs=15,
    batch_size=8,
    evaluate_every=5,
    checkpoint_every=5,
)
