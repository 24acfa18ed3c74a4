"""Runs with random weights, made without training."""

from typing import Any

import jax
from flax import nnx

from ddf_jax.data.info import DataInfo
from ddf_jax.layers import BatchNorm
from ddf_jax.training.devices import data_mesh
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.run import Run
from ddf_jax.training.state import ModelState, create_model


def untrained_run(recipe: Recipe, info: DataInfo, inputs: Any = None) -> Run:
    """A run of step 0; where inputs are given, BatchNorm has the statistics of these: its first ones let a deep network
    overflow."""

    @nnx.jit
    def build() -> nnx.Module:
        model: Any = create_model(recipe, info)
        if inputs is not None:
            for _, module in nnx.iter_modules(model):
                if isinstance(module, BatchNorm):
                    module.momentum = 1.0
            model(inputs)
            model.head.kernel[...] *= 0.05  # or logits of ±19 made 1e-5 of the last bits of the features
        return model

    structure, variables = nnx.split(build())
    state: Any = ModelState
    return Run(recipe, info, 0, state(structure, nnx.to_pure_dict(variables)), data_mesh(jax.devices()[:1]))
