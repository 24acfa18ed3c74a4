"""`digits` with dual complementary dynamic convolutions: a small DCDC-ResNet.

Command:   ddf train digits_dcdc
Hardware:  2 CPU cores
Time:      about three minutes (`experiments/results/digits_dcdc.json` has the measured one)
Expected:  test accuracy ≥ 97.0 %; its source is this recipe's own runs
"""

import dataclasses

from ddf_jax.recipes.digits_rednet import OPTIONS
from ddf_jax.recipes.digits_rednet import recipe as digits_rednet
from ddf_jax.training.recipe import ModelConfig

recipe = dataclasses.replace(digits_rednet, name="digits_dcdc", model=ModelConfig("dcdc_resnet26", OPTIONS))
