"""Depth networks: pinned sizes, images of any size, holes, units, and a gradient for each parameter."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.models import create, get_config, list_models
from ddf_jax.models.guided_steps import PACStep

PARAMETERS = {
    ("ddf_up_net", 4): 159_833,
    ("ddf_up_net", 8): 186_053,
    ("ddf_up_net", 16): 212_273,
    ("pac_net", 4): 136_737,
    ("pac_net", 8): 151_409,
    ("pac_net", 16): 166_081,
    ("djf", 4): 56_323,
    ("djf", 8): 56_323,
    ("djf", 16): 56_323,
}
MEASURED = {"ddf_up_net": 283_715, "pac_net": 281_667}  # of `make depth`

STEPS = {"channels": 4, "guidance_channels": 2, "kernel_size": 3}
FILTERS = {"layout": "filters", "channels": 8, "blocks": 1, "iterations": 2}
TINY = {
    "ddf_up_net": {**STEPS, "squeeze_ratio": 1.0, "heads": 2},
    "pac_net": STEPS,
    "djf": {"widths": (4, 3, 1), "joint_widths": (4, 3), "base": "joint_bilateral"},
    "ddf_up_net with filters": FILTERS,
    "pac_net with filters": FILTERS,
}
WITH_FILTERS = [name for name in TINY if name.endswith("with filters")]
MODES = (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit)


def tiny(name: str, **options):
    return get_config(name.split()[0], **TINY[name], **options)


def test_every_network_for_depth_is_pinned():
    assert (
        set(list_models(task="depth_upsampling"))
        == {name for name, _ in PARAMETERS}
        == {name.split()[0] for name in TINY}
    )


@pytest.mark.parametrize(("name", "scale"), PARAMETERS)
def test_parameter_count_is_the_pinned_one(name: str, scale: int):
    model = nnx.eval_shape(lambda: create(name, scale=scale, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == PARAMETERS[name, scale]


@pytest.mark.parametrize("name", MEASURED)
def test_parameter_count_of_the_measured_networks(name: str):
    model = nnx.eval_shape(lambda: create(name, layout="filters", channels=64, blocks=3, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == MEASURED[name]


@functools.cache
def drawn(name: str, scale: int = 4, dtype=jnp.float32):
    """Structure and random parameters of a tiny network."""
    config = tiny(name, scale=scale, dtype=dtype)
    structure, parameters, rest = nnx.split(nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0))), nnx.Param, ...)
    rng = np.random.default_rng(0)
    parameters = jax.tree.map(lambda p: rng.normal(0.2, 0.3, p.shape).astype(p.dtype), parameters)
    return structure, parameters, rest


def inputs(height: int, width: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    low = rng.uniform(1, 5, (2, -(-height // scale), -(-width // scale), 1)).astype(np.float32)
    return rng.random((2, height, width, 3), np.float32), low


def upsample(name: str, image, low, **options) -> np.ndarray:
    structure, parameters, rest = drawn(name, **options)
    run = jax.jit(lambda parameters, image, low: nnx.merge(structure, parameters, rest, copy=True)(image, low))
    return np.asarray(run(parameters, image, low))


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_gets_a_gradient_at_any_size(name: str):
    structure, parameters, rest = drawn(name)
    image, low = inputs(13, 18, 4)
    low[0, 1, 2:4] = 0

    def total(parameters):
        depth = nnx.merge(structure, parameters, rest, copy=True)(image, low)
        return (depth * jnp.linspace(1, 2, depth.size).reshape(depth.shape)).sum(), depth

    (_, depth), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(parameters)
    assert depth.shape == (2, 13, 18, 1)
    assert depth.dtype == jnp.float32
    for path, gradient in nnx.to_flat_state(gradients):
        values = np.asarray(gradient[...])
        assert np.isfinite(values).all(), path
        assert np.abs(values).max() > 0, path


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("scale", [2, 16])
def test_other_scales_and_sizes_have_the_images_shape(name: str, scale: int):
    model = nnx.eval_shape(lambda: tiny(name, scale=scale).build(rngs=nnx.Rngs(0)))
    for height, width in ((33, 50), (7, 1)):
        image, low = inputs(height, width, scale)
        assert nnx.eval_shape(lambda m, *x: m(*x), model, image, low).shape == (2, height, width, 1)


@pytest.mark.parametrize("name", ["ddf_up_net", *WITH_FILTERS])
def test_depth_has_the_unit_of_the_input_and_no_holes(name: str):
    image, low = inputs(16, 20, 4)
    low[0, 1:3, 2:4] = 0
    metres = upsample(name, image, low)
    assert np.isfinite(metres).all()
    np.testing.assert_allclose(upsample(name, image, 1000 * low), 1000 * metres, rtol=2e-3, atol=1)
    assert np.isfinite(upsample(name, image, np.zeros_like(low))).all()


@pytest.mark.parametrize("name", ["djf", *WITH_FILTERS])
def test_depth_that_is_the_same_everywhere_or_nowhere_has_finite_gradients(name: str):
    structure, parameters, rest = drawn(name)
    image, low = inputs(13, 18, 4)
    model = nnx.merge(structure, parameters, rest)
    gradient = jax.jit(jax.grad(lambda low: model(image, low).sum()))
    for value in (2.0, 0.0):
        assert np.isfinite(gradient(np.full_like(low, value))).all()


@pytest.mark.parametrize("name", WITH_FILTERS)
def test_a_large_hole_gets_the_depth_around_it(name: str):
    image, low = inputs(48, 52, 4)
    low[:] = 2.0
    low[0, 3:9, 4:10] = 0
    model = tiny(name).build(rngs=nnx.Rngs(0))
    np.testing.assert_allclose(nnx.jit(lambda model, *x: model(*x))(model, image, low), 2.0, rtol=1e-5)


@pytest.mark.parametrize(("name", "mode"), list(zip(WITH_FILTERS, MODES, strict=True)))
def test_a_batch_split_over_devices_has_the_same_gradients(name: str, mode):
    structure, parameters, rest = drawn(name)
    image, low = inputs(13, 18, 4)
    low[0, 1, 2:4] = 0

    @jax.jit
    def gradients(parameters, image, low):
        def total(parameters):
            return jnp.square(nnx.merge(structure, parameters, rest, copy=True)(image, low)).sum()

        return jax.grad(total)(parameters)

    expected = gradients(parameters, image, low)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(mode,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        split, whole = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
        found = gradients(jax.device_put(parameters, whole), *jax.device_put((image, low), split))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=5e-3 * np.abs(other).max())


@pytest.mark.parametrize("name", ["ddf_up_net", *WITH_FILTERS])
def test_an_unmeasured_pixel_is_told_from_a_measured_one_of_the_same_depth(name: str):
    image, low = inputs(16, 20, 4)
    low[:] = 2.0
    holed = low.copy()
    holed[:, 1, 1] = 0
    assert not np.allclose(upsample(name, image, holed), upsample(name, image, low), atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", WITH_FILTERS)
def test_a_new_network_with_filters_returns_its_samples_to_the_last_digits(name: str, dtype):
    image, low = inputs(16, 20, 4)
    model = tiny(name, dtype=dtype).build(rngs=nnx.Rngs(0))
    depth = np.asarray(nnx.jit(lambda model, *x: model(*x))(model, image, low))
    np.testing.assert_allclose(depth[:, 2::4, 2::4], low, rtol=1e-5)


@pytest.mark.parametrize("name", ["ddf_up_net", *WITH_FILTERS])
def test_half_precision_is_close_and_returns_float32(name: str):
    image, low = inputs(16, 20, 4)
    exact, half = (upsample(name, image, low, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, exact, atol=0.05 * np.abs(exact).max())


@pytest.mark.parametrize(("first", "offset"), [(True, 1), (False, 0)])
def test_pac_sees_each_sample_where_it_was_taken(first: bool, offset: int):
    step: Any = PACStep(1, 2, first=first, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    step.up.filters[...] = jnp.zeros((25, 1)).at[12].set(1.0)  # the centre of 5×5 alone
    x = jnp.arange(1.0, 13.0).reshape(1, 3, 4, 1)
    up = np.asarray(step(x, jnp.zeros((1, 6, 8, 2))))[0, ..., 0]
    np.testing.assert_allclose(up[offset::2, offset::2], x[0, ..., 0])
    assert np.count_nonzero(up) == 12


def test_what_does_not_fit_is_refused():
    structure, parameters, rest = drawn("djf")
    model = nnx.merge(structure, parameters, rest)
    with pytest.raises(
        ValueError, match=r"\[B, ⌈H/4⌉, ⌈W/4⌉, 1\] = \(2, 4, 5, 1\), got \(2, 13, 18, 3\) and \(2, 3, 5, 1\)"
    ):
        model(jnp.zeros((2, 13, 18, 3)), jnp.zeros((2, 3, 5, 1)))
    with pytest.raises(ValueError, match="`scale` must be a power of two, 2 or more, got 6"):
        get_config("pac_net", scale=6)
    with pytest.raises(ValueError, match="`layout` must be one of steps, filters, got 'filter'"):
        get_config("ddf_up_net", layout="filter")
    with pytest.raises(ValueError, match="`kind` must be one of generated, pixel_adaptive, got 'fixed'"):
        get_config("pac_net", layout="filters", kind="fixed")
    with pytest.raises(ValueError, match=r"`blocks` and `iterations` must be at least 1, got \(8, 0, 4\)"):
        get_config("pac_net", layout="filters", channels=8, blocks=0)
    with pytest.raises(ValueError, match="'ddf_up_net' has no option 'base'"):
        get_config("ddf_up_net", layout="filters", base="bicubic")
    with pytest.raises(ValueError, match="`base` must be one of bicubic, joint_bilateral, got 'nearest'"):
        get_config("djf", base="nearest")
    with pytest.raises(ValueError, match=r"output_layers must be at least 1, got \[32, 16, 5, 0, 3, 2\]"):
        get_config("ddf_up_net", depth_layers=0)
    with pytest.raises(ValueError, match="`scale` and `in_channels` must be at least 1, got 0 and 3"):
        get_config("djf", scale=0)
    with pytest.raises(ValueError, match=r"`image` must be \[B, H, W, 3\] .* got \(13, 18, 3\)"):
        model(jnp.zeros((13, 18, 3)), jnp.zeros((4, 5, 1)))
    with pytest.raises(ValueError, match="has no option 'num_classes'"):
        create("djf", num_classes=10, rngs=nnx.Rngs(0))
