"""The compiled steps of a run and the state they work on.

Under `jax.jit` with a batch split over the mesh a step sees the global batch: BatchNorm's statistics and every mean are
over all devices and processes, whatever their number.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, Sharding

from ddf_jax import models
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError, UserError
from ddf_jax.training.devices import batch_split, compiler_options, replicated
from ddf_jax.training.freezing import Unfrozen, check_trained, stop_statistics
from ddf_jax.training.leaves import leaf_names
from ddf_jax.training.norms import squared_norms
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.schedules import StepPlan
from ddf_jax.training.shapes import AbstractBatch, abstract_batches, compile_each
from ddf_jax.training.tasks import Batch, StepMetrics, Task

Variables = dict[str, Any]
"""Nested dictionaries of arrays, named as the attributes are: plain, so no checkpoint depends on Flax's classes."""


class TrainState(NamedTuple):
    """A model and its optimizer, split; `nnx.merge(*state)` is `{"model": nnx.Module, "optimizer": nnx.Optimizer}`."""

    structure: nnx.GraphDef[dict[str, Any]]
    variables: Variables  # {"model": …, "optimizer": …}

    def model(self) -> "ModelState":
        """The model without its optimizer."""
        return ModelState(nnx.graphdef(nnx.merge(*self)["model"]), self.variables["model"])


class ModelState(NamedTuple):
    """A model without its optimizer, split; `nnx.merge(*state)` is the `nnx.Module`."""

    structure: nnx.GraphDef[Any]
    variables: Variables


class StepReport(NamedTuple):
    """Small facts about one training step, fetched a few steps later so that the devices never wait."""

    loss: jax.Array  # [], of this batch, before the update
    metric: jax.Array | None  # [], the task's metric of this batch, before the update
    learning_rate: jax.Array  # []
    gradient_squares: jax.Array  # [parameters], squared norm of each gradient, in the order of `trained_parameters`
    invalid: dict[str, jax.Array]  # what is wrong with the batch -> [] bool, whether it is
    losses: Mapping[str, jax.Array] = {}  # [] each, the parts of the loss


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    task: Task,
    learning_rate: optax.Schedule,
    total_steps: int,
    freeze: tuple[str, ...] = (),
) -> tuple[Variables, StepReport]:
    """One update of every parameter that the optimizer has, of every statistic that is not frozen and random counter.

    `learning_rate` is the schedule inside the optimizer, here only to be reported. A module with a statistic that a
    pattern in `freeze` matches is in evaluation mode.
    """
    nodes = nnx.merge(*state)
    model, optimizer = nodes["model"], nodes["optimizer"]
    model.train()
    stop_statistics(model, freeze)
    progress = optimizer.step[...] / total_steps

    def objective(model: nnx.Module) -> tuple[jax.Array, StepMetrics]:
        metrics = task.step_metrics(model, batch, progress)  # pyright: ignore[reportArgumentType]  # it has a __call__
        return metrics.loss, metrics

    trained = nnx.DiffState(0, optimizer.wrt)
    (loss, metrics), gradients = nnx.value_and_grad(objective, argnums=trained, has_aux=True)(model)
    report = StepReport(
        loss=loss,
        metric=metrics.metric,
        learning_rate=jnp.asarray(learning_rate(optimizer.step[...])),
        gradient_squares=squared_norms(jax.tree.leaves(gradients)),
        invalid=metrics.invalid,
        losses=dict(metrics.losses),
    )
    optimizer.update(model, gradients)
    return nnx.to_pure_dict(nnx.state(nodes)), report


def eval_step(state: ModelState, batch: Batch, *, task: Task) -> Any:
    """The task's sums over the real examples of an evaluation batch. Padding counts for nothing."""
    return task.eval_sums(eval_model(state), batch)


def predict_step(state: ModelState, batch: Batch, *, task: Task) -> Any:
    """The task's predictions for a batch."""
    return task.predict(eval_model(state), batch)


def eval_model(state: ModelState) -> Any:
    """The model in evaluation mode."""
    model = nnx.merge(*state)
    model.eval()
    return model


def create_model(recipe: Recipe, info: DataInfo) -> nnx.Module:
    """The recipe's model for data of this kind: parameters in float32, computing in `recipe.dtype`.

    Raises:
        RunError: the model is of another task, or cannot be made with the recipe's options.
    """
    task, name = recipe.task, recipe.model.name
    if (given := models.get_config(name).task) != task.model_task:
        fitting = models.list_models(task=task.model_task)[0]
        raise RunError(
            f"`model.name` must be a model for {task.model_task}, such as {fitting}, got {name}, a model for {given}."
        )
    options: dict[str, Any] = task.model_options(info) | dict(recipe.model.options)
    with _wrong_options(recipe):
        return models.create(name, dtype=jnp.dtype(recipe.dtype), rngs=nnx.Rngs(recipe.seed), **options)


def abstract_state(recipe: Recipe, info: DataInfo, tx: optax.GradientTransformation, sharding: Sharding) -> TrainState:
    """Structure, shapes, dtypes and shardings of a run's state; no array is made."""
    return TrainState(*_abstract(lambda: _build(recipe, info, tx), sharding))


def abstract_model(recipe: Recipe, info: DataInfo, sharding: Sharding) -> ModelState:
    """The same of its model alone."""
    return ModelState(*_abstract(lambda: create_model(recipe, info), sharding))


def initial_variables(
    recipe: Recipe, info: DataInfo, tx: optax.GradientTransformation, sharding: Sharding
) -> Variables:
    """The state before the first step, made by one compiled program straight onto the devices that keep it."""
    # It runs once, and for a CPU optimising it takes longer than everything else here.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    build = jax.jit(
        lambda: nnx.to_pure_dict(nnx.state(_build(recipe, info, tx))), out_shardings=sharding, compiler_options=options
    )
    return build()


def compile_train_step(
    recipe: Recipe, info: DataInfo, plan: StepPlan, mesh: Mesh, abstract: TrainState, learning_rate: optax.Schedule
) -> Callable[[Variables, Batch], tuple[Variables, StepReport]]:
    """`(variables, batch) -> (variables, report)`; the memory of the old variables holds the new ones.

    Compiled for every shape of the task's batches."""

    def step(variables: Variables, batch: Batch) -> tuple[Variables, StepReport]:
        state = TrainState(abstract.structure, variables)
        return train_step(
            state,
            batch,
            task=recipe.task,
            learning_rate=learning_rate,
            total_steps=plan.total_steps,
            freeze=recipe.freeze,
        )

    options = compiler_options(mesh)
    program = jax.jit(step, donate_argnums=0, out_shardings=replicated(mesh), compiler_options=options)

    def compile_for(batch: AbstractBatch) -> Callable[[Variables, Batch], tuple[Variables, StepReport]]:
        with _wrong_options(recipe):
            lowered = program.lower(abstract.variables, batch)
        return lowered.compile()

    return compile_each(compile_for, abstract_batches(recipe.task, info, mesh, recipe.batch_size, training=True))


def compile_eval_step(
    task: Task, info: DataInfo, mesh: Mesh, abstract: ModelState, batch_size: int
) -> Callable[[Variables, Batch], Any]:
    """`(model's variables, batch) -> sums`, or results of each example, split over the devices as the batch is."""

    def step(variables: Variables, batch: Batch) -> Any:
        return eval_step(ModelState(abstract.structure, variables), batch, task=task)

    shardings = batch_split(mesh) if task.per_example else replicated(mesh)
    program = jax.jit(step, out_shardings=shardings, compiler_options=compiler_options(mesh))
    batches = abstract_batches(task, info, mesh, batch_size, training=False)
    return compile_each(lambda batch: program.lower(abstract.variables, batch).compile(), batches)


def jit_predict(task: Task, mesh: Mesh, abstract: ModelState) -> Callable[[Variables, Batch], Any]:
    """`(model's variables, batch) -> predictions`, whole on every device; compiled at the first call."""

    def step(variables: Variables, batch: Batch) -> Any:
        return predict_step(ModelState(abstract.structure, variables), batch, task=task)

    return jax.jit(step, out_shardings=replicated(mesh), compiler_options=compiler_options(mesh))


def parameter_sizes(state: TrainState) -> dict[str, int]:
    """Elements of each parameter by name (`stages.0.0.conv1.kernel`), in the order of the leaves."""
    parameters = nnx.to_pure_dict(nnx.state(nnx.merge(*state)["model"], nnx.Param))
    return {name: leaf.size for name, leaf in zip(leaf_names(parameters), jax.tree.leaves(parameters), strict=True)}


def trained_parameters(state: TrainState) -> list[str]:
    """Names of the parameters that are not frozen, in the order of the leaves of a gradient."""
    nodes = nnx.merge(*state)
    return leaf_names(nnx.to_pure_dict(nnx.state(nodes["model"], nodes["optimizer"].wrt)))


@contextlib.contextmanager
def _wrong_options(recipe: Recipe) -> Iterator[None]:
    """Explains a `ValueError` of a layer or an operator: the recipe's options have made it a wrong call."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        model = f"{recipe.model.name} with the options {dict(recipe.model.options)}"
        raise RunError(f"`model`: {model} cannot be trained on this recipe's data: {error}") from error


def _build(recipe: Recipe, info: DataInfo, tx: optax.GradientTransformation) -> dict[str, Any]:
    model = create_model(recipe, info)
    check_trained(recipe, model)
    trained = nnx.All(nnx.Param, Unfrozen(recipe.freeze)) if recipe.freeze else nnx.Param
    return {"model": model, "optimizer": nnx.Optimizer(model, tx, wrt=trained)}


def _abstract(build: Callable[[], Any], sharding: Sharding) -> tuple[nnx.GraphDef[Any], Variables]:
    structure, variables = nnx.split(nnx.eval_shape(build))
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), nnx.to_pure_dict(variables)
    )
    return structure, shapes
