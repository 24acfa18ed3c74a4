"""Upsampling of depth without training, with parameters chosen on training pictures."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.data.config import DataConfig
from ddf_jax.data.depth_transforms import Downsample
from ddf_jax.data.examples import DepthImages
from ddf_jax.data.sources import open_source
from ddf_jax.functional import (
    bicubic_upsample,
    bilateral_solver_upsample,
    guided_upsample,
    joint_bilateral_upsample,
    markov_field_upsample,
    static_dynamic_upsample,
)

TUNING_PICTURES = 24

GRIDS: dict[str, tuple[Callable[..., jax.Array], dict[str, tuple[Any, ...]]]] = {
    "Markov random field": (
        markov_field_upsample,
        {"data_weight": (30.0, 300.0, 1000.0, 3000.0), "colour_weight": (100.0, 300.0, 1000.0)},
    ),
    "guided filter": (guided_upsample, {"radius": (1, 2, 4, 8), "epsilon": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)}),
    "joint bilateral": (
        joint_bilateral_upsample,
        {"radius": (1, 2, 3), "sigma_space": (0.4, 0.6, 0.8), "sigma_colour": (0.03, 0.045, 0.06, 0.1)},
    ),
    "static/dynamic filter": (
        static_dynamic_upsample,
        {
            "smoothness": (0.0003, 0.001, 0.003, 0.03, 0.3),
            "static_bandwidth": (100.0, 300.0, 1000.0),
            "dynamic_bandwidth": (30.0, 200.0, 1000.0),
        },
    ),
    "fast bilateral solver": (
        bilateral_solver_upsample,
        {
            "smoothness": (0.3, 1.0, 4.0),
            "sigma_space": (1.5, 2.0, 4.0, 8.0),
            "sigma_luma": (0.06,),
            "sigma_chroma": (0.06,),
            "sigma_confidence": (0.1,),
        },
    ),
}

UpsampleFunction = Callable[[jax.Array, jax.Array], jax.Array]
"""(low-resolution depth, image) to depth, batched."""


class Method(NamedTuple):
    """A way to upsample depth to the resolution of its image."""

    name: str
    upsampler: UpsampleFunction
    facts: dict[str, Any]  # other keys of its row


def without_training(data: DataConfig, scale: int) -> Iterator[Method]:
    """The classical methods, bicubic first. The parameters of each are those of its grid with the least error on some
    pictures of `train`."""

    @jax.jit
    def bicubic(low: jax.Array, image: jax.Array) -> jax.Array:
        return bicubic_upsample(low, height=image.shape[1], width=image.shape[2], scale=scale)

    yield Method("bicubic", bicubic, {})
    batch = _training_pictures(data, scale)
    for name, (function, grid) in GRIDS.items():
        best, setting = min(
            ((_error(batch, _with(function, scale, setting)), setting) for setting in _settings(grid)),
            key=lambda pair: pair[0],
        )
        words = ", ".join(f"{key} {value:g}" for key, value in setting.items())
        yield Method(name, _with(function, scale, setting), {"setting": words, "tuning_rmse_cm": best})


def _settings(grid: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _with(function: Callable[..., jax.Array], scale: int, setting: Mapping[str, Any]) -> UpsampleFunction:
    """The function with a setting; it is compiled once for each radius."""
    program = _compiled(function, scale, setting.get("radius"))
    numbers = {name: jnp.float32(value) for name, value in setting.items() if name != "radius"}
    return lambda low, image: program(low, image, numbers)


@functools.cache
def _compiled(function: Callable[..., jax.Array], scale: int, radius: int | None) -> Any:
    static = {"scale": scale} | ({} if radius is None else {"radius": radius})
    return jax.jit(lambda low, image, numbers: function(low, image, **static, **numbers))


def _training_pictures(data: DataConfig, scale: int) -> dict[str, jax.Array]:
    source, downsample = open_source(data, DepthImages(scale), "train"), Downsample(scale)
    chosen = np.linspace(0, len(source) - 1, TUNING_PICTURES).astype(int).tolist()
    examples = [downsample.map(source[index] or {}) for index in chosen]
    return {name: jnp.asarray(np.stack([example[name] for example in examples])) for name in ("image", "low", "depth")}


def _error(batch: Mapping[str, jax.Array], upsampler: UpsampleFunction) -> float:
    errors = np.asarray(upsampler(batch["low"], batch["image"]) - batch["depth"], np.float64)
    return 100.0 * float(np.sqrt(np.mean(np.square(errors[np.asarray(batch["depth"]) > 0]))))
