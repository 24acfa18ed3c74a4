"""The user's own transforms of training images, by the names that a recipe refers to. Light: loads no data library."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from ddf_jax.errors import UserError
from ddf_jax.registered import Registry

TRANSFORMS = Registry("transform")

Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def register_transform(name: Function) -> Function: ...
@overload
def register_transform(name: str) -> Callable[[Function], Function]: ...
def register_transform(name: Any) -> Any:
    """Registers a transform of labelled training images, a decorator with or without a name of its own.

    The function takes an image, uint8 [H, W, C], after cropping and augmentation, and a generator of random numbers. It
    returns an image of the same shape and type, and leaves its argument as it is. The generator's numbers depend on the
    seed and the example's place in the run, so that a resumed run, and any number of workers and processes, sees the
    same images: take no other random numbers.

    Args:
        name: that `data.transforms` refers to; the function's own where `register_transform` is written without one.

    Raises:
        UserError: another function has the name.

    Example::

        @register_transform("darken")
        def darken(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return (image * rng.uniform(0.5, 1.0)).astype(np.uint8)

        recipe = dataclasses.replace(base, data=DataConfig(folder="photos", transforms=(darken,)))
    """
    if isinstance(name, str):
        return lambda function: TRANSFORMS.register(function, name)
    return TRANSFORMS.register(name)


def transform_name(transform: str | Callable[..., Any]) -> str:
    """The name of a registered transform, which may be given by its name already.

    Raises:
        UserError: it is a function that is not registered.
    """
    if isinstance(transform, str):
        return transform
    for name, known in TRANSFORMS.entries.items():
        if known is transform:
            return name
    raise UserError(
        f"`transforms` must be registered functions, got {transform!r}. Decorate it with "
        f"`ddf_jax.data.registered_transforms.register_transform`."
    )
