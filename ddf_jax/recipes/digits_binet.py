"""`digits` with Bi-volution on involution: a small BiNet (dc).

Command:   ddf train digits_binet
Hardware:  2 CPU cores
Time:      about eight minutes (`experiments/results/digits_binet.json` has the measured one)
Expected:  test accuracy ≥ 97.0 %; its source is this recipe's own runs
"""

import dataclasses

from ddf_jax.recipes.digits_rednet import OPTIONS
from ddf_jax.recipes.digits_rednet import recipe as digits_rednet
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(digits_rednet, name="digits_binet", model=ModelConfig("binet38", OPTIONS))
