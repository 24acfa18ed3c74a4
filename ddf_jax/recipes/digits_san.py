"""`digits` with pairwise self-attention: a small SAN.

Command:   ddf train digits_san
Hardware:  2 CPU cores
Time:      about three minutes (`experiments/results/digits_san.json` has the measured one)
Expected:  test accuracy ≥ 97.0 %; its source is this recipe's own runs
"""

import dataclasses

from ddf_jax.recipes.digits import recipe as digits
from ddf_jax.training.recipe import ModelConfig

# Maps of 8×8, 4×4 and 2×2 pixels: modules of size 3 reflect the last by one pixel.
OPTIONS = {"stem": "small", "width": 32, "stem_blocks": 2, "blocks": (2, 1), "kernel_size": 3}

recipe = dataclasses.replace(digits, name="digits_san", epochs=25, model=ModelConfig("san10", OPTIONS))
