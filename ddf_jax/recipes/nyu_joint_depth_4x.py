"""Joint depth upsampling by 4 on the labelled NYU Depth v2, as the paper trains it.

Command:   ddf train nyu_joint_depth_4x
Hardware:  one GPU
Time:      not yet run
Expected:  RMSE 2.16 cm (Zhou et al., CVPR 2021, Table 7; bicubic 8.16, PAC-Net 2.39); not yet run here
Recipe:    1500 epochs of Adam, 1e-4 and a tenth of it after 1000 and 1350, batch 8, crops of 256×256. The paper also
           resizes before it crops, but does not say to what size: here nothing is resized.
"""

from ddf_jax.data.config import DataConfig
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling

recipe = Recipe(
    name="nyu_joint_depth_4x",
    model=ModelConfig("ddf_up_net"),
    data=DataConfig(dataset="nyu_depth_v2_labeled", image_size=256, augment="crop", workers=4),
    # 1e-4 for a batch of 8.
    optimizer=OptimizerConfig(
        method="adam", learning_rate=1e-4 * 256 / 8, drops=(1000, 1350), warmup_epochs=0, weight_decay=0.0
    ),
    task=DepthUpsampling(scale=4),
    epochs=1500,
    batch_size=8,
    evaluate_every=50,
    checkpoint_every=50,
)
