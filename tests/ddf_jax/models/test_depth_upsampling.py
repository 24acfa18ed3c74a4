"""Depth networks: pinned sizes, images of any size, holes, units, and a gradient for each parameter."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.models import create, get_config, list_models
from ddf_jax.models.dmsg import RectifiedConv
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
    ("djf_plus", 4): 81_863,
    ("djf_plus", 8): 81_863,
    ("djf_plus", 16): 81_863,
    ("dmsg", 4): 326_404,
    ("dmsg", 8): 454_660,
    ("dmsg", 16): 582_916,
}
MEASURED = {"ddf_up_net": 283_715, "pac_net": 281_667}  # of `make depth`

STEPS = {"channels": 4, "guidance_channels": 2, "kernel_size": 3}
FILTERS = {"layout": "filters", "channels": 8, "blocks": 1, "iterations": 2}
TINY = {
    "ddf_up_net": {**STEPS, "squeeze_ratio": 1.0, "heads": 2},
    "pac_net": STEPS,
    "djf": {"widths": (4, 3, 1), "joint_widths": (4, 3), "base": "joint_bilateral"},
    "djf_plus": {"widths": (4, 3, 2), "joint_widths": (4, 3)},
    "dmsg": {"channels": 3, "depth_channels": 4, "image_channels": 2},
    "ddf_up_net with filters": FILTERS,
    "pac_net with filters": FILTERS,
}
FAST = ("djf", "dmsg", "ddf_up_net with filters")  # as a whole, with gradients
EACH = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in TINY]
WITH_FILTERS = [param for param in EACH if str(param.values[0]).endswith("with filters")]
OF_STEPS = pytest.param("ddf_up_net", marks=pytest.mark.slow)
SIZE = (13, 18)  # of every image that a network is compiled for
COTANGENT = np.linspace(1, 2, 2 * 13 * 18, dtype=np.float32).reshape(2, 13, 18, 1)


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
def drawn(name: str, dtype: Any = jnp.float32):
    """Structure and random parameters of a tiny network."""
    config = tiny(name, dtype=dtype)
    structure, parameters, rest = nnx.split(nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0))), nnx.Param, ...)
    rng = np.random.default_rng(0)
    mean = 0.0 if name == "dmsg" else 0.2  # negative values reach the slopes of DMSG, positive ones keep ReLUs alive
    parameters = jax.tree.map(lambda p: rng.normal(mean, 0.3, p.shape).astype(p.dtype), parameters)
    return structure, parameters, rest


def inputs(height: int, width: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    low = rng.uniform(1, 5, (2, -(-height // scale), -(-width // scale), 1)).astype(np.float32)
    return rng.random((2, height, width, 3), np.float32), low


@functools.cache
def half_precision(name: str):
    """The compiled network in bfloat16: of its parameters, an image and depth."""
    structure, _, rest = drawn(name, jnp.bfloat16)
    return jax.jit(lambda parameters, image, low: nnx.merge(structure, parameters, rest, copy=True)(image, low))


@functools.cache
def differentiated(name: str):
    """The compiled network with the gradients of its parameters and of depth; the cotangent differs in every pixel."""
    structure, _, rest = drawn(name)

    def total(parameters, image, low, cotangent):
        depth = nnx.merge(structure, parameters, rest, copy=True)(image, low)
        return (depth * cotangent).sum(), depth

    return jax.jit(jax.grad(total, argnums=(0, 2), has_aux=True))


def run(name: str, image, low, parameters=None) -> tuple[tuple[Any, np.ndarray], np.ndarray]:
    """Gradients of the parameters and of depth, and the network's depth."""
    parameters = drawn(name)[1] if parameters is None else parameters
    return jax.device_get(differentiated(name)(parameters, image, low, COTANGENT))


def upsample(name: str, image, low, parameters=None) -> np.ndarray:
    return run(name, image, low, parameters)[1]


@pytest.mark.parametrize("name", EACH)
def test_every_parameter_gets_a_gradient_at_any_size(name: str):
    image, low = inputs(*SIZE, 4)
    low[0, 1, 2:4] = 0
    (gradients, _), depth = run(name, image, low)
    assert depth.shape == (2, *SIZE, 1)
    assert depth.dtype == jnp.float32
    for path, gradient in nnx.to_flat_state(gradients):
        values = np.asarray(gradient[...])
        assert np.isfinite(values).all(), path
        assert np.abs(values).max() > 0, path


@pytest.mark.parametrize(
    ("scale", "height", "width"),
    [
        (2, 33, 50),
        (16, 7, 1),
        pytest.param(2, 7, 1, marks=pytest.mark.slow),
        pytest.param(16, 33, 50, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", TINY)
def test_other_scales_and_sizes_have_the_images_shape(name: str, scale: int, height: int, width: int):
    model = nnx.eval_shape(lambda: tiny(name, scale=scale).build(rngs=nnx.Rngs(0)))
    image, low = inputs(height, width, scale)
    assert nnx.eval_shape(lambda m, *x: m(*x), model, image, low).shape == (2, height, width, 1)


@pytest.mark.parametrize("name", [OF_STEPS, "dmsg", *WITH_FILTERS])
def test_depth_has_the_unit_of_the_input_and_no_holes(name: str):
    image, low = inputs(*SIZE, 4)
    low[0, 1:3, 2:4] = 0
    metres = upsample(name, image, low)
    assert np.isfinite(metres).all()
    np.testing.assert_allclose(upsample(name, image, 1000 * low), 1000 * metres, rtol=2e-3, atol=1)
    assert np.isfinite(upsample(name, image, np.zeros_like(low))).all()


@pytest.mark.parametrize("name", ["djf", "dmsg", *WITH_FILTERS])
def test_depth_that_is_the_same_everywhere_or_nowhere_has_finite_gradients(name: str):
    image, low = inputs(*SIZE, 4)
    for value in (2.0, 0.0):
        (_, gradient), _ = run(name, image, np.full_like(low, value))
        assert np.isfinite(gradient).all()


@functools.cache
def initial(name: str):
    """The parameters of a new network."""
    return nnx.state(tiny(name).build(rngs=nnx.Rngs(0)), nnx.Param)


@pytest.mark.parametrize("name", WITH_FILTERS)
def test_a_large_hole_gets_the_depth_around_it(name: str):
    image, low = inputs(*SIZE, 4)
    low[:] = 2.0
    low[0, 1:, 1:] = 0
    np.testing.assert_allclose(upsample(name, image, low, initial(name)), 2.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("pac_net with filters", jax.sharding.AxisType.Explicit),
        ("ddf_up_net with filters", jax.sharding.AxisType.Auto),
    ],
)
@pytest.mark.slow
def test_a_batch_split_over_devices_has_the_same_gradients(name: str, mode):
    image, low = inputs(*SIZE, 4)
    low[0, 1, 2:4] = 0
    expected, _ = run(name, image, low)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(mode,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        split, whole = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
        parameters = jax.device_put(drawn(name)[1], whole)
        found, _ = differentiated(name)(parameters, *jax.device_put((image, low, COTANGENT), split))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=5e-3 * np.abs(other).max())


@pytest.mark.parametrize("name", [OF_STEPS, *WITH_FILTERS])
def test_an_unmeasured_pixel_is_told_from_a_measured_one_of_the_same_depth(name: str):
    image, low = inputs(*SIZE, 4)
    low[:] = 2.0
    holed = low.copy()
    holed[:, 1, 1] = 0
    assert not np.allclose(upsample(name, image, holed), upsample(name, image, low), atol=1e-4)


@pytest.mark.parametrize("name", WITH_FILTERS)
def test_a_new_network_with_filters_returns_its_samples_to_the_last_digits(name: str):
    image, low = inputs(*SIZE, 4)
    depth = upsample(name, image, low, initial(name))
    np.testing.assert_allclose(depth[:, 2::4, 2::4], low[:, :3, :4], rtol=1e-5)


# Both kinds of filters are computed in float32.
@pytest.mark.parametrize("name", WITH_FILTERS)
def test_a_new_network_in_half_precision_returns_its_samples_to_the_last_digits(name: str):
    image, low = inputs(*SIZE, 4)
    depth = np.asarray(half_precision(name)(initial(name), image, low))
    np.testing.assert_allclose(depth[:, 2::4, 2::4], low[:, :3, :4], rtol=1e-5)


@pytest.mark.parametrize("name", [OF_STEPS, *WITH_FILTERS])
def test_half_precision_is_close_and_returns_float32(name: str):
    image, low = inputs(*SIZE, 4)
    exact, half = upsample(name, image, low), np.asarray(half_precision(name)(drawn(name)[1], image, low))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, exact, atol=0.05 * np.abs(exact).max())


@pytest.mark.parametrize(("first", "offset"), [(True, 1), (False, 0)])
def test_pac_sees_each_sample_where_it_was_taken(first: bool, offset: int):
    step: Any = PACStep(1, 2, first=first, dtype=jnp.float32, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    step.up.filters[...] = np.eye(25, 1, -12, np.float32)  # the centre of 5×5 alone
    x = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4, 1)
    up = np.asarray(nnx.jit(lambda step, *x: step(*x))(step, x, np.zeros((1, 6, 8, 2), np.float32)))[0, ..., 0]
    np.testing.assert_allclose(up[offset::2, offset::2], x[0, ..., 0])
    assert np.count_nonzero(up) == 12


def test_dmsg_sees_each_sample_where_it_was_taken():
    """Transposed convolutions of the centre of their kernels alone put sample i at 4·i + 2."""
    options: Any = {"dtypes": {"dtype": jnp.float32, "param_dtype": jnp.float32, "rngs": nnx.Rngs(0)}}
    x = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4, 1)
    for doubling in (2, 1):
        up: Any = RectifiedConv(1, 1, doubling=doubling, **options)
        up.conv.kernel[...] = np.eye(25, 1, -12, np.float32).reshape(5, 5, 1, 1)
        up.conv.bias[...] = np.zeros(1, np.float32)
        x = np.asarray(up(x))
    np.testing.assert_allclose(x[0, 2::4, 2::4, 0], np.arange(1, 13).reshape(3, 4))
    assert np.count_nonzero(x) == 12


def test_what_does_not_fit_is_refused():
    structure, parameters, rest = drawn("djf")
    model = nnx.merge(structure, parameters, rest)
    with pytest.raises(
        ValueError, match=r"\[B, ⌈H/4⌉, ⌈W/4⌉, 1\] = \(2, 4, 5, 1\), got \(2, 13, 18, 3\) and \(2, 3, 5, 1\)"
    ):
        model(jnp.zeros((2, 13, 18, 3)), jnp.zeros((2, 3, 5, 1)))
    with pytest.raises(ValueError, match="`scale` must be a power of two, 2 or more, got 6"):
        get_config("pac_net", scale=6)
    with pytest.raises(ValueError, match="`scale` must be a power of two, 2 or more, got 3"):
        get_config("dmsg", scale=3)
    with pytest.raises(ValueError, match=r"`image_channels` must be at least 1, got \(32, 0, 49\)"):
        get_config("dmsg", depth_channels=0)
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
