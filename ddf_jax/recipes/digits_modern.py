"""`digits` by a modern recipe: AdamW, mixup and averaged weights.

Command:   ddf train digits_modern
Hardware:  2 CPU cores
Time:      about a minute and a half
Expected:  test accuracy ≥ 98.0 %; measured 99.2 % in one run, of the last weights and of the averaged ones (`digits`:
           97.8 %; an image of the 360 is 0.3 %)
"""

import dataclasses

from ddf_jax.recipes.digits import recipe as digits
from ddf_jax.training.tasks.classification import Classification

recipe = dataclasses.replace(
    digits,
    name="digits_modern",
    optimizer=dataclasses.replace(
        digits.optimizer,
        method="adamw",
        learning_rate=0.02,
        weight_decay=0.05,
        decay_norm_and_bias=False,
        nesterov=False,
    ),
    task=Classification(label_smoothing=0.1, mixup=0.1),
    ema_decay=0.99,
)
