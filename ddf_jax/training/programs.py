"""The compiled programs of a run, made before its first step so that shapes and memory are known then."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from ddf_jax.data.sources import DataInfo
from ddf_jax.training.mesh import batch_split, replicated
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.state import ModelState, TrainState, Variables
from ddf_jax.training.step import StepReport, answer_step, eval_step, train_step
from ddf_jax.training.tasks import task_of
from ddf_jax.training.tasks.task import Batch, Task


def compile_train_step(
    recipe: Recipe, info: DataInfo, mesh: Mesh, abstract: TrainState, learning_rate: optax.Schedule
) -> Callable[[Variables, Batch], tuple[Variables, StepReport]]:
    """`(variables, batch) -> (variables, report)`; the memory of the old variables holds the new ones."""
    task, total_steps = task_of(recipe), info.steps(recipe.epochs, recipe.batch_size)

    def step(variables: Variables, batch: Batch) -> tuple[Variables, StepReport]:
        state = TrainState(abstract.structure, variables)
        return train_step(state, batch, task=task, learning_rate=learning_rate, total_steps=total_steps)

    program = jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh))
    batch = _abstract_batch(task, info, mesh, recipe.batch_size, training=True)
    return program.lower(abstract.variables, batch).compile()


def compile_eval_step(
    recipe: Recipe, info: DataInfo, mesh: Mesh, abstract: ModelState, batch_size: int
) -> Callable[[Variables, Batch], Any]:
    """`(model's variables, batch) -> counts`."""
    task = task_of(recipe)

    def step(variables: Variables, batch: Batch) -> Any:
        return eval_step(ModelState(abstract.structure, variables), batch, task=task)

    program = jax.jit(step, out_shardings=replicated(mesh))
    return program.lower(abstract.variables, _abstract_batch(task, info, mesh, batch_size, training=False)).compile()


def answer_program(recipe: Recipe, mesh: Mesh, abstract: ModelState) -> Callable[[Variables, Batch], jax.Array]:
    """`(model's variables, batch) -> answers`, the whole of them on every device; compiled when it is first asked."""
    task = task_of(recipe)

    def step(variables: Variables, batch: Batch) -> jax.Array:
        return answer_step(ModelState(abstract.structure, variables), batch, task=task)

    return jax.jit(step, out_shardings=replicated(mesh))


def _abstract_batch(
    task: Task, info: DataInfo, mesh: Mesh, batch_size: int, *, training: bool
) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=batch_split(mesh))
        for name, (shape, dtype) in task.shapes(info, training=training).items()
    }
