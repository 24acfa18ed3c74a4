"""Which task a recipe sets."""

from collections.abc import Callable

from ddf_jax.training.recipe import Recipe
from ddf_jax.training.tasks.classification import Classification
from ddf_jax.training.tasks.depth import DepthUpsampling
from ddf_jax.training.tasks.task import Task

TASKS: dict[str, Callable[[Recipe], Task]] = {
    "label": lambda recipe: Classification(recipe.label_smoothing),
    "depth": lambda recipe: DepthUpsampling(recipe.data.scale, recipe.depth_loss),
}


def task_of(recipe: Recipe) -> Task:
    """What there is to be found in the recipe's data decides."""
    return TASKS[recipe.data.target](recipe)
