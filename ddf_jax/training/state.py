"""The state of a training run: one pytree of arrays, and the static structure that turns it into objects."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Sharding

from ddf_jax import models
from ddf_jax.data.sources import DataInfo
from ddf_jax.training.errors import RunError
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.tasks import task_of

Variables = dict[str, Any]
"""Nested dictionaries of arrays, named as the attributes are: plain, so no checkpoint depends on Flax's classes."""


class TrainState(NamedTuple):
    """A model and its optimizer, split; `nnx.merge(*state)` is `{"model": nnx.Module, "optimizer": nnx.Optimizer}`."""

    structure: nnx.GraphDef[dict[str, Any]]
    variables: Variables  # {"model": …, "optimizer": …}


class ModelState(NamedTuple):
    """A model without its optimizer, split; `nnx.merge(*state)` is the `nnx.Module`."""

    structure: nnx.GraphDef[nnx.Module]
    variables: Variables


def create_model(recipe: Recipe, info: DataInfo) -> nnx.Module:
    """The recipe's model for data of this kind: parameters in float32, computing in `recipe.dtype`."""
    target = models.get_config(recipe.model.name).target
    if target != recipe.data.target:
        fitting = models.list_models(target=recipe.data.target)
        raise RunError(
            f"`model.name` must be a model for data whose target is a {recipe.data.target}, such as {fitting[0]}, got "
            f"{recipe.model.name}, which is for a {target}."
        )
    options: dict[str, Any] = task_of(recipe).model_options(info) | dict(recipe.model.options)
    return models.create(
        recipe.model.name,
        dtype=jnp.dtype(recipe.dtype),
        rngs=nnx.Rngs(recipe.seed),
        **options,
    )


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


def abstract_state(recipe: Recipe, info: DataInfo, tx: optax.GradientTransformation, sharding: Sharding) -> TrainState:
    """The same state's structure, shapes, dtypes and shardings; no array is made."""
    return TrainState(*_abstract(lambda: _build(recipe, info, tx), sharding))


def abstract_model(recipe: Recipe, info: DataInfo, sharding: Sharding) -> ModelState:
    """The model's part of it, made without the optimizer."""
    return ModelState(*_abstract(lambda: create_model(recipe, info), sharding))


def model_part(state: TrainState) -> ModelState:
    """The model of a run, without its optimizer."""
    return ModelState(nnx.graphdef(nnx.merge(*state)["model"]), state.variables["model"])


def parameter_sizes(state: TrainState) -> dict[str, int]:
    """Elements of each parameter by name (`layer1.0.conv1.kernel`), in the order of the leaves of a gradient."""
    parameters = nnx.to_pure_dict(nnx.state(nnx.merge(*state)["model"], nnx.Param))
    return {name: leaf.size for name, leaf in zip(leaf_names(parameters), jax.tree.leaves(parameters), strict=True)}


def leaf_names(tree: Any) -> list[str]:
    """The path to each leaf, joined by dots, in the order of `jax.tree.leaves`."""
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in jax.tree.leaves_with_path(tree)]


def _build(recipe: Recipe, info: DataInfo, tx: optax.GradientTransformation) -> dict[str, Any]:
    model = create_model(recipe, info)
    return {"model": model, "optimizer": nnx.Optimizer(model, tx, wrt=nnx.Param)}


def _abstract(build: Callable[[], Any], sharding: Sharding) -> tuple[nnx.GraphDef[Any], Variables]:
    structure, variables = nnx.split(nnx.eval_shape(build))
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), nnx.to_pure_dict(variables)
    )
    return structure, shapes
