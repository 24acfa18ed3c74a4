"""Upsampling by weighted least squares against dense linear algebra in float64: value, derivative, and wrong calls."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax import functional
from ddf_jax.errors import UserError

SCALE, HEIGHT, WIDTH = 3, 11, 7
SIZE = (12, 9)  # whole blocks

Reference = Callable[[np.ndarray, np.ndarray], np.ndarray]


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Two pictures with holes, and one without a sample; of image two areas with noise."""
    rng = np.random.default_rng(0)
    low = rng.uniform(1, 5, (3, 4, 3, 1)).astype(np.float32)
    low[0, 1, 1] = low[1, 0] = low[2] = 0
    image = 0.5 + 0.2 * (np.arange(WIDTH) > 3)[None, None, :, None] + rng.uniform(0, 0.05, (3, HEIGHT, WIDTH, 3))
    return low, image.astype(np.float32)


def padded(image: np.ndarray) -> np.ndarray:
    return np.pad(image, ((0, SIZE[0] - HEIGHT), (0, SIZE[1] - WIDTH), (0, 0)), "edge").astype(np.float64)


def pairs() -> list[tuple[int, int]]:
    """The numbers of pixels that are neighbours."""
    rows, columns = SIZE
    down = [(p, p + columns) for p in range((rows - 1) * columns)]
    return down + [(p, p + 1) for p in range(rows * columns) if (p + 1) % columns]


def placed(low: np.ndarray) -> np.ndarray:
    samples = np.zeros(SIZE)
    samples[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE] = low[..., 0]
    return samples.ravel()


def fitted(samples: np.ndarray, confidence: np.ndarray, weight: Callable[[int, int], float]) -> np.ndarray:
    """The minimum of Σ c (u - x)² + Σ w (u - u)² over pairs."""
    matrix = np.diag(confidence.astype(np.float64))
    for p, q in pairs():
        step = np.zeros(len(samples))
        step[p], step[q] = 1, -1
        matrix += weight(p, q) * np.outer(step, step)
    return np.linalg.solve(matrix, confidence * samples)


MARKOV = {"data_weight": 0.7, "colour_weight": 30.0}


def markov_field(low: np.ndarray, image: np.ndarray) -> np.ndarray:
    samples, colours = placed(low), padded(image).reshape(-1, 3)

    def weight(p: int, q: int) -> float:
        return 2 * np.exp(-MARKOV["colour_weight"] * np.square(colours[p] - colours[q]).sum())

    return fitted(samples, MARKOV["data_weight"] * (samples > 0), weight).reshape(SIZE)


STATIC_DYNAMIC = {"smoothness": 0.5, "static_bandwidth": 20.0, "dynamic_bandwidth": 10.0, "steps": 4}


def static_dynamic(low: np.ndarray, image: np.ndarray) -> np.ndarray:
    samples, colours, unit = placed(low), padded(image).reshape(-1, 3), low.max()
    u = np.ones(len(samples))

    def weight(p: int, q: int) -> float:
        static = np.exp(-STATIC_DYNAMIC["static_bandwidth"] * np.square(colours[p] - colours[q]).sum())
        return STATIC_DYNAMIC["smoothness"] * static * np.exp(-STATIC_DYNAMIC["dynamic_bandwidth"] * (u[p] - u[q]) ** 2)

    for _ in range(int(STATIC_DYNAMIC["steps"])):
        u = fitted(samples / unit, samples > 0, weight)
    return unit * u.reshape(SIZE)


BILATERAL = {"smoothness": 2.0, "sigma_space": 2.5, "sigma_luma": 0.1, "sigma_chroma": 0.1, "sigma_confidence": 0.3}


def bilateral_solver(low: np.ndarray, image: np.ndarray) -> np.ndarray:
    target = cubic(low).ravel()
    places = (np.arange(SCALE) - SCALE // 2) / SCALE
    bump = np.exp(-np.square(places) / (2 * BILATERAL["sigma_confidence"] ** 2))
    confidence = np.kron(low[..., 0] > 0, np.outer(bump, bump)).ravel()
    to_yuv = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    colours = padded(image).reshape(-1, 3) @ to_yuv.T
    widths = np.array([BILATERAL["sigma_space"]] * 2 + [0.1] * 3)
    features = np.concatenate([np.indices(SIZE).reshape(2, -1).T, colours], 1)
    cells = [tuple(cell) for cell in np.floor(features / widths).astype(int).tolist()]
    names = sorted(set(cells))
    splat = np.array([[cell == name for cell in cells] for name in names], np.float64)
    apart = np.abs(np.array(names)[:, None] - np.array(names)[None]).sum(-1)
    blur = 10 * np.eye(len(names)) + (apart == 1)
    pixels, n = splat.sum(1), np.ones(len(names))
    for _ in range(10):
        n = np.sqrt(n * pixels / (blur @ n))
    smooth = np.diag(n * (blur @ n)) - np.diag(n) @ blur @ np.diag(n)
    matrix = BILATERAL["smoothness"] * smooth + np.diag(splat @ confidence)
    return (splat.T @ np.linalg.solve(matrix, splat @ (confidence * target))).reshape(SIZE)


def cubic(low: np.ndarray) -> np.ndarray:
    """A linear map of the low-resolution depth that fills no holes: they are filled before."""
    return np.asarray(_cubic(jnp.asarray(low[None], jnp.float32)), np.float64)[0, ..., 0]


@jax.jit
def _cubic(low: jax.Array) -> jax.Array:
    return functional.bicubic_upsample(low, height=SIZE[0], width=SIZE[1], scale=SCALE)


METHODS: dict[str, tuple[Callable[..., jax.Array], dict[str, Any], Reference]] = {
    "Markov random field": (functional.markov_field_upsample, MARKOV, markov_field),
    "static/dynamic filter": (functional.static_dynamic_upsample, STATIC_DYNAMIC, static_dynamic),
    "bilateral solver": (functional.bilateral_solver_upsample, {**BILATERAL, "iterations": 100}, bilateral_solver),
}


@functools.cache
def compiled(name: str) -> Callable[..., Any]:
    """The gradients of low-resolution depth and of the image, and depth: of these, a cotangent and float options."""
    function, options, _ = METHODS[name]
    whole = {option: value for option, value in options.items() if isinstance(value, int)}

    def total(low: jax.Array, image: jax.Array, cotangent: jax.Array, numbers: Any) -> tuple[jax.Array, jax.Array]:
        depth = function(low, image, scale=SCALE, **whole, **numbers)
        return (depth * cotangent).sum(), depth

    return jax.jit(jax.grad(total, (0, 1), has_aux=True))


def run(name: str, cotangent: np.ndarray, **options: float) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    numbers = {option: value for option, value in METHODS[name][1].items() if isinstance(value, float)} | options
    return jax.device_get(compiled(name)(*inputs(), cotangent, numbers))


@pytest.mark.parametrize("name", METHODS)
def test_upsampling_and_its_derivative_are_those_of_the_dense_system(name: str):
    reference = METHODS[name][2]
    low, image = inputs()
    rng = np.random.default_rng(1)
    cotangent = rng.normal(size=(3, HEIGHT, WIDTH, 1)).astype(np.float32)
    (of_low, of_image), depth = run(name, cotangent, tolerance=1e-6)
    assert depth.shape == (3, HEIGHT, WIDTH, 1)
    assert depth.dtype == np.float32
    for b in range(2):
        expected = reference(low[b].astype(np.float64), image[b])[:HEIGHT, :WIDTH]
        np.testing.assert_allclose(depth[b, ..., 0], expected, rtol=1e-4)
        moved = 1e-3 * rng.normal(size=low[b].shape) * (low[b] > 0)
        # The cells of the bilateral solver do not follow the image.
        recoloured = 0.0 if name == "bilateral solver" else 1e-3 * rng.normal(size=image[b].shape)
        ends = [reference(low[b] + sign * moved, image[b] + sign * recoloured) for sign in (1, -1)]
        change = ((ends[0] - ends[1])[:HEIGHT, :WIDTH] / 2 * cotangent[b, ..., 0]).sum()
        assert (of_low[b] * moved).sum() + (of_image[b] * recoloured).sum() == pytest.approx(change, rel=1e-2), b
    assert not depth[2].any()  # there is nothing to upsample
    assert np.isfinite(of_low).all()
    assert of_image.any() != (name == "bilateral solver")


def test_the_bilateral_solver_is_stable_where_confidence_is_tiny():
    """Cells on their own whose confidence is below the rounding of their other weights keep to the range of depth."""
    low, _ = inputs()
    cotangent = np.zeros((3, HEIGHT, WIDTH, 1), np.float32)
    alone = {"sigma_luma": 0.01, "sigma_chroma": 0.01}
    _, depth = run("bilateral solver", cotangent, tolerance=1e-5, smoothness=50.0, sigma_confidence=0.06, **alone)
    for b in range(2):
        target = cubic(low[b])
        assert target.min() - 0.1 < depth[b].min() < depth[b].max() < target.max() + 0.1


@pytest.mark.parametrize("name", METHODS)
def test_what_does_not_fit_is_refused(name: str):
    function, options, _ = METHODS[name]
    low, image = inputs()
    expected = r"`low` \[B, ⌈H/4⌉, ⌈W/4⌉, 1\] = \(3, 3, 2, 1\), got \(3, 11, 7, 3\) and \(3, 4, 3, 1\)"
    with pytest.raises(UserError, match=expected):
        function(low, image, scale=4)
    with pytest.raises(UserError, match="`scale` must be an int ≥ 1, got 0"):
        function(low, image, scale=0)
    for option in options:
        with pytest.raises(UserError, match=f"`{option}` must be positive, got -1"):
            function(low, image, scale=SCALE, **{option: -1})


def test_the_bilateral_solver_takes_three_colours_or_one():
    low, image = map(jnp.asarray, inputs())
    with pytest.raises(UserError, match=r"`image` must have 1 or 3 channels, got \(3, 11, 7, 2\)"):
        functional.bilateral_solver_upsample(low, image[..., :2], scale=SCALE)
