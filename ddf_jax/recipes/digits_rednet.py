"""`digits` with involutions: a small RedNet.

Command:   ddf train digits_rednet
Hardware:  2 CPU cores
Time:      about two minutes (`experiments/results/digits_rednet.json` has the measured one)
Expected:  test accuracy ≥ 97.0 %; its source is this recipe's own runs
"""

import dataclasses

from ddf_jax.recipes.digits import recipe as digits
from ddf_jax.training.recipe import ModelConfig

OPTIONS = {**digits.model.options, "group_channels": 8}

recipe = dataclasses.replace(digits, name="digits_rednet", epochs=25, model=ModelConfig("rednet26", OPTIONS))
