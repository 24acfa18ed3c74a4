"""The state of a run: its model, its optimizer, and what a recipe adds to them, as shapes or made on the devices."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from ddf_jax import models
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError, UserError
from ddf_jax.training.freezing import Unfrozen, check_trained
from ddf_jax.training.leaves import floating, leaf_name, leaf_names
from ddf_jax.training.loss_scale import initial_loss_scale
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.sharding import shardings

Variables = dict[str, Any]
"""Nested dictionaries of arrays, named as the attributes are: plain, so no checkpoint depends on Flax's classes.

Of a run: `model`, `optimizer`, with `ema_decay` `ema` (the averaged parameters and statistics), and in float16
`loss_scale`."""

NODES = ("model", "optimizer")
"""Those that are of Flax modules."""


class TrainState(NamedTuple):
    """A model and its optimizer, split, and what belongs to neither."""

    structure: nnx.GraphDef[dict[str, Any]]
    variables: Variables

    def nodes(self) -> dict[str, Any]:
        """`{"model": nnx.Module, "optimizer": nnx.Optimizer}`."""
        return nnx.merge(self.structure, {name: self.variables[name] for name in NODES})

    def model(self) -> "ModelState":
        """The model without its optimizer."""
        return ModelState(nnx.graphdef(self.nodes()["model"]), self.variables["model"])


class ModelState(NamedTuple):
    """A model without its optimizer, split; `nnx.merge(*state)` is the `nnx.Module`."""

    structure: nnx.GraphDef[Any]
    variables: Variables


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
    with wrong_options(recipe):
        return models.create(name, dtype=jnp.dtype(recipe.dtype), rngs=nnx.Rngs(recipe.seed), **options)


def abstract_state(recipe: Recipe, info: DataInfo, tx: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Structure, shapes, dtypes and shardings of a run's state; no array is made."""
    structure, variables = nnx.split(nnx.eval_shape(lambda: _build(recipe, info, tx)))
    shapes = jax.eval_shape(lambda variables: complete(recipe, variables), nnx.to_pure_dict(variables))
    return TrainState(structure, _placed(shapes, mesh))


def abstract_model(recipe: Recipe, info: DataInfo, mesh: Mesh) -> ModelState:
    """The same of its model alone."""
    structure, variables = nnx.split(nnx.eval_shape(lambda: create_model(recipe, info)))
    return ModelState(structure, _placed(nnx.to_pure_dict(variables), mesh))


def initial_variables(
    recipe: Recipe, info: DataInfo, tx: optax.GradientTransformation, abstract: TrainState
) -> Variables:
    """The state before the first step, made by one compiled program straight onto the devices that keep it."""
    # It runs once, and for a CPU optimising it takes longer than everything else here.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    build = jax.jit(
        lambda: complete(recipe, nnx.to_pure_dict(nnx.state(_build(recipe, info, tx)))),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract.variables),
        compiler_options=options,
    )
    return build()


def complete(recipe: Recipe, variables: Variables) -> Variables:
    """Adds what the recipe asks for next to model and optimizer, where it is missing, as before the first step."""
    added: Variables = {}
    if recipe.ema_decay and "ema" not in variables:
        added["ema"] = jax.tree.map(jnp.copy, floating(variables["model"]))
    if recipe.dtype == "float16" and "loss_scale" not in variables:
        added["loss_scale"] = initial_loss_scale()
    return variables | added


def averaged_model(variables: Variables) -> Variables:
    """The model's variables with the averaged parameters and statistics in place of the last ones."""
    averages = dict(zip(leaf_names(variables["ema"]), jax.tree.leaves(variables["ema"]), strict=True))
    return jax.tree.map_with_path(lambda path, leaf: averages.get(leaf_name(path), leaf), variables["model"])


def parameter_sizes(state: TrainState) -> dict[str, int]:
    """Elements of each parameter by name (`stages.0.0.conv1.kernel`), in the order of the leaves."""
    parameters = nnx.to_pure_dict(nnx.state(state.nodes()["model"], nnx.Param))
    return {name: leaf.size for name, leaf in zip(leaf_names(parameters), jax.tree.leaves(parameters), strict=True)}


def trained_parameters(state: TrainState) -> list[str]:
    """Names of the parameters that are not frozen, in the order of the leaves of a gradient."""
    nodes = state.nodes()
    return leaf_names(nnx.to_pure_dict(nnx.state(nodes["model"], nodes["optimizer"].wrt)))


@contextlib.contextmanager
def wrong_options(recipe: Recipe) -> Iterator[None]:
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


def _placed(variables: Variables, mesh: Mesh) -> Variables:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        variables,
        shardings(variables, mesh),
    )
