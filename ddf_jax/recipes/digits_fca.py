"""`digits` with frequency attention: a small FcaNet.

Command:   ddf train digits_fca
Hardware:  2 CPU cores
Time:      not yet run
Expected:  test accuracy ≥ 97.0 %; its source is this recipe's own runs
"""

import dataclasses

from ddf_jax.recipes.digits import recipe as digits
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(
    digits, name="digits_fca", model=ModelConfig("fca_resnet50", {**digits.model.options, "width": 16})
)
