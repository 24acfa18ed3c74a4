"""Joint depth upsampling by 4 on rendered rooms, small and short.

Command:   ddf train joint_depth_4x
Hardware:  2 CPU cores
Time:      six to eight minutes (`experiments/results/depth/depth.json` has the measured one)
Expected:  the RMSE in `experiments/results/depth/depth.md`; its source is that run, no paper trains on these pictures
Recipe:    Adam, cosine, batch 8, crops of 64×64, a fifth of them with holes in the input, a loss that large errors do
           not dominate. The network has 3×3 convolutions of fewer channels for depth than the published one, sees the
           picture in blocks of 4×4 (more parameters, fewer operations), and ends in filters that choose among the
           depths around (`ddf_jax.models.depth_filters`) where the published one adds to upsampled depth
"""

from ddf_jax.data.config import DataConfig
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe

SMALL = {
    "channels": 16,
    "guidance_channels": 8,
    "guidance_stride": 4,
    "guidance_width": 64,
    "guidance_layers": 4,
    "kernel_size": 3,
    "base": "filters",
}

recipe = Recipe(
    name="joint_depth_4x",
    model=ModelConfig("ddf_up_net", {**SMALL, "heads": 4}),
    data=DataConfig(dataset="rooms", target="depth", scale=4, image_size=64, augment="holes"),
    # 0.003 for a batch of 8.
    optimizer=OptimizerConfig(method="adam", learning_rate=0.003 * 256 / 8, warmup_epochs=1, weight_decay=0.0),
    epochs=30,
    batch_size=8,
    depth_loss="charbonnier",
    evaluate_every=10,
    checkpoint_every=10,
)
