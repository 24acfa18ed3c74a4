"""The recipe of `tests.ddf_jax.training.launch` as a file that `ddf train` takes."""

from tests.ddf_jax.training.launch import TINY

recipe = TINY
