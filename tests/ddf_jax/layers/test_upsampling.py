"""The upsamplers against their formulas, and the slot that all of them fit."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import CARAFE, PAC, Bilinear, DDFUp, Deconvolution, Nearest, PACUp, PixelShuffle
from ddf_jax.models.slots import partial_layer
from tests.compilation import FUSED_AS_BY_DEFAULT
from tests.ddf_jax.layers import formulas
from tests.ddf_jax.layers.test_ddf import filter_norm

SLOTS = {
    "nearest": Nearest,
    "bilinear": Bilinear,
    "pixel_shuffle": PixelShuffle,
    "deconvolution": Deconvolution,
    "carafe": partial_layer(CARAFE, kernel_size=3, compressed_channels=4),
    "pac_up": PACUp,
    "ddf_up": partial_layer(DDFUp, squeeze_ratio=0.5, heads=2),
}


def place(outputs: list[np.ndarray], scale: int) -> np.ndarray:
    """S² maps [B, H, W, C] as the sub-pixels of one map [B, S·H, S·W, C]."""
    batch, height, width, channels = outputs[0].shape
    y = np.zeros((batch, scale * height, scale * width, channels))
    for s, output in enumerate(outputs):
        for h, w in np.ndindex(height, width):
            y[:, scale * h + s // scale, scale * w + s % scale] = output[:, h, w]
    return y


def zero_stuffed(x: np.ndarray, scale: int) -> np.ndarray:
    """x on every S-th pixel of an image S times as large, zeros between."""
    y = np.zeros((x.shape[0], scale * x.shape[1], scale * x.shape[2], x.shape[3]))
    y[:, ::scale, ::scale] = x
    return y


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        # `DDFUp` has S² pairs of branches.
        pytest.param(name, scale, marks=pytest.mark.slow if (name, scale) == ("ddf_up", 4) else ())
        for name in SLOTS
        for scale in (1, 2, 3, 4)
    ],
)
def test_every_upsampler_fits_the_slot_and_keeps_the_compute_dtype(name, scale):
    def upsample(x):
        return SLOTS[name](4, scale=scale, dtype=jnp.bfloat16, param_dtype=jnp.float32, rngs=nnx.Rngs(0))(x)

    y = jax.eval_shape(upsample, jax.ShapeDtypeStruct((2, 5, 3, 4), jnp.float32))
    assert (y.shape, y.dtype) == ((2, 5 * scale, 3 * scale, 4), jnp.bfloat16)


@pytest.mark.parametrize("name", [name for name in SLOTS if name not in ("nearest", "bilinear")])
def test_every_parameter_gets_a_gradient_in_the_slot(name):
    module = formulas.drawn(lambda rngs: SLOTS[name](4, scale=2, dtype=None, param_dtype=jnp.float32, rngs=rngs))
    x = formulas.image(2, 5, 3, 4).astype(np.float32)
    gradients = nnx.jit(nnx.grad(lambda module: (module(x) ** 2).sum()))(module)
    assert nnx.to_flat_state(gradients)
    for path, gradient in nnx.to_flat_state(gradients):
        assert np.abs(gradient[...]).max() > 0, path


OTHERS = {"kernel_size": 5, "dilation": 2, "combine": "add", "guidance_channels": 3, "guidance_kernel_size": 5}


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 2, "heads": 2},
        pytest.param({"scale": 3, "heads": 2}, marks=pytest.mark.slow),  # nine pairs of branches
        {"scale": 1, **OTHERS},
        pytest.param({"scale": 2, **OTHERS}, marks=pytest.mark.slow),
        pytest.param({"scale": 1, "guidance_kernel_size": 1}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_ddf_up_is_the_formula_of_the_paper(options):
    up = formulas.drawn(lambda rngs: DDFUp(4, squeeze_ratio=0.5, rngs=rngs, **options))
    x, p = formulas.image(2, 5, 3, 4), formulas.parameters(up)
    guidance = formulas.image(2, 5, 3, 3, seed=2) if "guidance_channels" in options else x
    heads, dilation = options.get("heads", 1), options.get("dilation", 1)
    taps = options.get("kernel_size", 3) ** 2
    outputs = []
    for s in range(options["scale"] ** 2):
        spatial, convs = guidance, p["spatial_branch"][s]["convs"]
        if len(convs) == 2:
            assert convs[0]["kernel"].shape[0] == options.get("guidance_kernel_size", 3)
            spatial = formulas.conv(spatial, convs[0], groups=spatial.shape[-1])
        spatial = formulas.linear(spatial, convs[len(convs) - 1]).reshape(2, 5, 3, heads, taps)
        spatial = np.repeat(filter_norm(spatial, -1) / taps**0.5, 4 // heads, axis=-2)  # [B, H, W, C, T]
        branch = p["channel_branch"][s]
        hidden = formulas.relu(formulas.linear(x.mean((1, 2)), branch["squeeze"]))
        channel = (
            filter_norm(formulas.linear(hidden, branch["excite"]).reshape(2, taps, 4), 1) * branch["norm"]["scale"]
        )
        channel = channel.swapaxes(1, 2)[:, None, None]
        filters = spatial + channel if options.get("combine") == "add" else spatial * channel
        outputs.append(formulas.spatial_filter(x, filters, dilation=dilation))
    inputs = (x, guidance) if "guidance_channels" in options else (x,)
    formulas.check(up, place(outputs, options["scale"]), *inputs)


@pytest.mark.parametrize("options", [{"scale": 3, "groups": 2}, {"scale": 2, "kernel_size": 5, "encoder_dilation": 2}])
def test_carafe_is_the_formula_of_the_paper(options):
    options = {"kernel_size": 3, "compressed_channels": 3, **options}
    up = formulas.drawn(lambda rngs: CARAFE(4, rngs=rngs, **options))
    x, p = formulas.image(2, 5, 3, 4), formulas.parameters(up)
    compressed = formulas.linear(x, p["channel_compressor"])
    logits = formulas.conv(compressed, p["content_encoder"], dilation=options.get("encoder_dilation", 1))
    # What mmcv's pixel shuffle makes of the channels: group, tap, sub-pixel.
    logits = logits.reshape(2, 5, 3, options.get("groups", 1), options["kernel_size"] ** 2, options["scale"] ** 2)
    weights = np.exp(logits) / np.exp(logits).sum(4, keepdims=True)
    outputs = [formulas.spatial_filter(x, weights[..., s]) for s in range(options["scale"] ** 2)]
    formulas.check(up, place(outputs, options["scale"]), x)


@pytest.mark.parametrize(
    ("scale", "kernel_size", "learned"),
    [
        (2, 5, True),
        (3, 5, False),
        *(pytest.param(4, kernel_size, True, marks=pytest.mark.slow) for kernel_size in (7, 9)),
        pytest.param(1, 3, True, marks=pytest.mark.slow),
    ],
)
def test_pac_up_is_pac_of_an_image_with_zeros_between_its_pixels(scale, kernel_size, learned):
    up = formulas.drawn(lambda rngs: PACUp(4, scale=scale, kernel_size=kernel_size, learned=learned, rngs=rngs))
    pac = formulas.drawn(lambda rngs: PAC(4, kernel_size=kernel_size, learned=learned, rngs=rngs))
    if learned:
        pac.filters[...] = up.filters[...]
    x, guidance = formulas.image(2, 3, 5, 4), formulas.image(2, 3 * scale, 5 * scale, 3, seed=2) / 2
    expected = formulas.run(pac, zero_stuffed(x, scale), guidance)
    assert (np.abs(expected).max((0, 3)) > 0).all()  # every output sees an input
    formulas.check(up, expected, x, guidance)


def test_pac_up_without_a_guidance_compares_the_pixels_of_x():
    up = formulas.drawn(lambda rngs: PACUp(4, scale=3, rngs=rngs))
    x = formulas.image(1, 3, 5, 4)
    repeated = x.repeat(3, 1).repeat(3, 2)
    np.testing.assert_allclose(formulas.run(up, x), formulas.run(up, x, repeated), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("scale", "kernel_size"), [(1, 3), (2, None), (2, 5), (3, None)])
def test_deconvolution_is_a_convolution_of_an_image_with_zeros_between_its_pixels(scale, kernel_size):
    up = formulas.drawn(lambda rngs: Deconvolution(4, scale=scale, kernel_size=kernel_size, rngs=rngs))
    x = formulas.image(2, 5, 3, 4)
    formulas.check(up, formulas.conv(zero_stuffed(x, scale), formulas.parameters(up)), x)


def test_pixel_shuffle_places_what_one_convolution_makes():
    up = formulas.drawn(lambda rngs: PixelShuffle(4, scale=3, rngs=rngs))
    x = formulas.image(2, 5, 3, 4)
    parts = formulas.conv(x, formulas.parameters(up)["conv"])
    formulas.check(up, place([parts[..., 4 * s : 4 * s + 4] for s in range(9)], 3), x)


def test_bilinear_interpolates_between_the_centres_of_pixels():
    x = formulas.image(2, 5, 3, 4)
    rows, columns = (np.clip((np.arange(3 * n) + 0.5) / 3 - 0.5, 0, n - 1) for n in (5, 3))
    up, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = np.minimum(up + 1, 4), np.minimum(left + 1, 2)
    v, h = (rows - up)[None, :, None, None], (columns - left)[None, None, :, None]
    upper, lower = (x[:, at][:, :, left] * (1 - h) + x[:, at][:, :, right] * h for at in (up, down))
    formulas.check(Bilinear(4, scale=3), upper * (1 - v) + lower * v, x)


def test_nearest_repeats():
    x = formulas.image(2, 5, 3, 4)
    formulas.check(Nearest(4, scale=3), x.repeat(3, 1).repeat(3, 2), x)


@pytest.mark.parametrize(
    "make",
    [DDFUp, *(pytest.param(make, marks=pytest.mark.slow) for make in (CARAFE, PACUp))],
    ids=lambda make: make.__name__,
)
def test_no_outputs_are_stacked_or_shuffled(make):
    """With many more channels than taps, an operation that moves as many values as the output has moves outputs."""
    up = nnx.eval_shape(lambda: make(128, scale=2, rngs=nnx.Rngs(0)))
    structure, state = nnx.split(up)
    x = jax.ShapeDtypeStruct((2, 5, 7, 128), jnp.float32)
    program = (
        jax.jit(lambda state, x: nnx.merge(structure, state)(x)).lower(state, x).compile(FUSED_AS_BY_DEFAULT).as_text()
    )
    assert program is not None
    found = re.findall(r"= \w+\[([\d,]+)\]\S* ([\w-]+)\(", program)
    large = {operation for shape, operation in found if math.prod(map(int, shape.split(","))) >= 2 * 10 * 14 * 128}
    assert "multiply" in large
    assert large.isdisjoint({"concatenate", "transpose", "copy", "gather", "scatter", "dynamic-update-slice"})


@pytest.mark.parametrize(
    ("make", "shapes", "message"),
    [
        (lambda rngs: DDFUp(8, heads=3, rngs=rngs), (), "`heads` must divide `in_channels`, got heads=3"),
        (lambda rngs: DDFUp(8, squeeze_ratio=0.1, rngs=rngs), (), "must leave at least one channel of in_channels=8"),
        (lambda rngs: DDFUp(8, guidance_kernel_size=4, rngs=rngs), (), "must be odd, 1 for no convolution, got 4"),
        (lambda rngs: CARAFE(8, groups=3, rngs=rngs), (), "`groups` must divide `in_channels`, got groups=3"),
        (lambda rngs: PACUp(8, scale=3, kernel_size=3, rngs=rngs), (), r"at least 2·scale - 1, got 3 for scale=3"),
        (lambda rngs: Deconvolution(8, kernel_size=4, rngs=rngs), (), "must be odd and at least"),
        (
            lambda rngs: DDFUp(8, guidance_channels=3, rngs=rngs),
            ((1, 5, 3, 8), (1, 10, 6, 3)),
            r"= \(1, 5, 3, 3\) as x is, got \(1, 10, 6, 3\)",
        ),
        (lambda rngs: DDFUp(8, guidance_channels=3, rngs=rngs), ((1, 5, 3, 8),), r"= \(1, 5, 3, 3\) as x is, got None"),
        (lambda rngs: DDFUp(8, rngs=rngs), ((1, 5, 3, 8), (1, 5, 3, 8)), "must be called with x alone"),
        (
            lambda rngs: PACUp(8, rngs=rngs),
            ((1, 5, 3, 8), (1, 5, 3, 8)),
            r"= \(1, 10, 6\), got \(1, 5, 3, 8\)",
        ),
    ],
)
def test_a_wrong_size_is_named(make, shapes, message):
    def use(*inputs):
        up = make(nnx.Rngs(0))
        return up(*inputs) if inputs else None

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(use, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
