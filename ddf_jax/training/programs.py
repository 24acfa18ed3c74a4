"""The compiled programs of a run, made before its first step so that shapes and memory are known then."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from ddf_jax.data.sources import DataInfo
from ddf_jax.training.mesh import batch_split, replicated
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.state import ModelState, TrainState, Variables
from ddf_jax.training.step import Batch, EvalCounts, StepReport, eval_step, train_step


def compile_train_step(
    recipe: Recipe, info: DataInfo, mesh: Mesh, abstract: TrainState, learning_rate: optax.Schedule
) -> Callable[[Variables, Batch], tuple[Variables, StepReport]]:
    """`(variables, batch) -> (variables, report)`; the memory of the old variables holds the new ones."""

    def step(variables: Variables, batch: Batch) -> tuple[Variables, StepReport]:
        state = TrainState(abstract.structure, variables)
        return train_step(state, batch, learning_rate=learning_rate, label_smoothing=recipe.label_smoothing)

    program = jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh))
    return program.lower(abstract.variables, _abstract_batch(info, mesh, recipe.batch_size)).compile()


def compile_eval_step(
    info: DataInfo, mesh: Mesh, abstract: ModelState, batch_size: int
) -> Callable[[Variables, Batch], EvalCounts]:
    """`(model's variables, batch) -> counts`."""

    def step(variables: Variables, batch: Batch) -> EvalCounts:
        return eval_step(ModelState(abstract.structure, variables), batch)

    program = jax.jit(step, out_shardings=replicated(mesh))
    return program.lower(abstract.variables, _abstract_batch(info, mesh, batch_size)).compile()


def _abstract_batch(info: DataInfo, mesh: Mesh, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    shapes = {
        "image": ((info.image_size, info.image_size, info.channels), jnp.float32),
        "label": ((), jnp.int32),
        "mask": ((), jnp.bool),
    }
    return {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=batch_split(mesh))
        for name, (shape, dtype) in shapes.items()
    }
