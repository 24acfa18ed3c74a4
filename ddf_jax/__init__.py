"""Content-adaptive convolution for JAX: operators, layers, models, training.

Every name here is imported when it is first used, so that `import ddf_jax` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ddf_jax.errors import how_to_install

if TYPE_CHECKING:
    from ddf_jax.models import create, list_models
    from ddf_jax.training.detect import detect
    from ddf_jax.training.evaluate import evaluate
    from ddf_jax.training.recipe import Recipe
    from ddf_jax.training.run import load_run, predict
    from ddf_jax.training.train import train
    from pallas_kernels import dynamic_filter, dynamic_upsample

    __version__: str
    """The version of the installed package, or "0+checkout" where none is installed."""

__all__ = [
    "Recipe",
    "__version__",
    "create",
    "detect",
    "dynamic_filter",
    "dynamic_upsample",
    "evaluate",
    "list_models",
    "load_run",
    "predict",
    "train",
]

_MODULES = {
    "Recipe": "ddf_jax.training.recipe",
    "create": "ddf_jax.models",
    "detect": "ddf_jax.training.detect",
    "dynamic_filter": "pallas_kernels",
    "dynamic_upsample": "pallas_kernels",
    "evaluate": "ddf_jax.training.evaluate",
    "list_models": "ddf_jax.models",
    "load_run": "ddf_jax.training.run",
    "predict": "ddf_jax.training.run",
    "train": "ddf_jax.training.train",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        if (command := how_to_install(error)) is None:
            raise
        raise ModuleNotFoundError(f"`ddf_jax.{name}`: {command}", name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    import importlib.metadata  # slow to import

    try:
        return importlib.metadata.version("ddf-jax")
    except importlib.metadata.PackageNotFoundError:
        return "0+checkout"  # a checkout that is not installed
