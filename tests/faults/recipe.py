"""The recipe of `tests.ddf_jax.training.launch` under all groups of options, as a file that `ddf train` takes."""

import dataclasses

from tests.ddf_jax.training.launch import GROUPS, TINY

recipe = dataclasses.replace(TINY, **GROUPS["all"])
