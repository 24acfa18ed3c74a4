"""Which parameters and statistics a recipe trains, and whether the options that name some of them have an effect."""

import dataclasses
import fnmatch
from collections.abc import Sequence
from typing import Any

from flax import nnx

from ddf_jax.checkpoints.backbone import BACKBONE
from ddf_jax.checkpoints.fitting import HEAD
from ddf_jax.errors import RunError
from ddf_jax.training.leaves import leaf_names
from ddf_jax.training.optimizers import layer_depths, of_backbone
from ddf_jax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Unfrozen:
    """A filter of Flax for the variables whose names none of the shell patterns in `freeze` matches."""

    freeze: tuple[str, ...]

    def __call__(self, path: Sequence[Any], value: Any) -> bool:
        return not _matches_any(".".join(map(str, path)), self.freeze)


def check_trained(recipe: Recipe, model: nnx.Module) -> None:
    """Raises `RunError` where `freeze` or `backbone_factor` has no effect, or nothing is left to train."""
    parameters, statistics = (
        leaf_names(nnx.to_pure_dict(nnx.state(model, kind))) for kind in (nnx.Param, nnx.BatchStat)
    )
    for pattern in recipe.freeze:
        if not any(_matches_any(name, (pattern,)) for name in parameters + statistics):
            first = ", ".join(sorted({name.partition(".")[0] for name in parameters}))
            raise RunError(
                f"`freeze` must match parameters or statistics of {recipe.model.name}, got {pattern!r}, which matches "
                f"none. Their names begin with {first}."
            )
    trained = [name for name in parameters if not _matches_any(name, recipe.freeze)]
    if not trained:
        raise RunError(f"`freeze` must leave a parameter to train, got {recipe.freeze}, which match all.")
    if recipe.optimizer.backbone_factor != 1.0:
        if not any(name.startswith((BACKBONE, HEAD)) for name in parameters):
            raise RunError(
                f"`optimizer.backbone_factor` needs a model with a `{HEAD}` or a `{BACKBONE}`, got {recipe.model.name}."
            )
        if set(of_backbone(parameters)).isdisjoint(trained):
            raise RunError("`optimizer.backbone_factor` needs a parameter of the backbone, but `freeze` matches all.")
    if recipe.optimizer.layer_decay != 1.0 and not any(layer_depths(parameters)):
        raise RunError(
            f"`optimizer.layer_decay` needs a model with a `stem` and `stages`, got {recipe.model.name}, which has "
            f"neither."
        )
    for pattern in recipe.optimizer.no_decay:
        if not any(_matches_any(name, (pattern,)) for name in parameters):
            raise RunError(f"`optimizer.no_decay` must match parameters of {recipe.model.name}, got {pattern!r}.")


def stop_statistics(model: nnx.Module, freeze: tuple[str, ...]) -> None:
    """Makes modules with a frozen statistic use what they have and leave it as it is."""
    for path, module in nnx.iter_modules(model) if freeze else ():
        names = [name for name, value in vars(module).items() if isinstance(value, nnx.BatchStat)]
        if any(_matches_any(".".join(map(str, (*path, name))), freeze) for name in names):
            module.eval()


def _matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
