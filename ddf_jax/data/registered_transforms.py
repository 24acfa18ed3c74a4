"""The user's own transforms of training images, by the names that a recipe refers to. Light: loads no data library."""

from collections.abc import Callable
from typing import Any, TypeVar

from ddf_jax.registered import Registry

TRANSFORMS = Registry("transform")

Function = TypeVar("Function", bound=Callable[..., Any])


def register_transform(function: Function) -> Function:
    """Registers a transform of labelled training images under its own name: a decorator.

    The function takes an image, uint8 [H, W, C], after cropping and augmentation, and a generator of random numbers. It
    returns an image of the same shape and type, and leaves its argument as it is. The generator's numbers depend on the
    seed and the example's place in the run, so that a resumed run, and any number of workers and processes, sees the
    same images: take no other random numbers.

    Raises:
        UserError: another function has the name.

    Example::

        @register_transform
        def darken(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return (image * rng.uniform(0.5, 1.0)).astype(np.uint8)

        recipe = dataclasses.replace(base, data=DataConfig(folder="photos", transforms=(darken,)))
    """
    return TRANSFORMS.register(function)
