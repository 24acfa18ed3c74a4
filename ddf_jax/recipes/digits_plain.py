"""The baseline of `digits`: the same recipe with 3×3 convolutions instead of dynamic filters.

Command:   ddf train digits_plain
Hardware:  2 CPU cores
Time:      about a minute (`experiments/results/digits_plain.json` has the measured one)
Expected:  test accuracy ≥ 98.0 %; its source is this recipe's own runs
"""

import dataclasses

from ddf_jax.recipes.digits import recipe as digits

recipe = dataclasses.replace(digits, name="digits_plain", model=dataclasses.replace(digits.model, name="resnet18"))
