"""Counts of parameters and MACs against published ones, and against formulas for each kind of layer."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from ddf_jax.analysis.comparison import count as count_model
from ddf_jax.analysis.counting import Complexity, complexity, total
from ddf_jax.layers import DDF, BatchNorm, Conv, FilterNorm, Involution
from pallas_kernels import dynamic_filter, dynamic_upsample, local_correlation, neighborhood_attention


def count(name: str, **options) -> Complexity:
    return count_model(name, tuple(options.items()))


def cost(function, *shapes: tuple[int, ...]) -> tuple[int, int]:
    """Core and mmcv MACs of a function of inputs alone."""
    return layer_cost(lambda rngs: Stateless(function), *shapes)


def layer_cost(layer, *shapes: tuple[int, ...]) -> tuple[int, int]:
    """Core and mmcv MACs of the module of `layer(rngs=…)`."""
    model = nnx.eval_shape(lambda: layer(rngs=nnx.Rngs(0)))
    counts = complexity(model, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    return counts.macs_core, counts.macs_mmcv


@contextlib.contextmanager
def flax_promotion():
    """Some of Flax's own layers need the promotion rules that this suite forbids."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Stateless(nnx.Module):
    def __init__(self, function):
        self.function = function

    def __call__(self, *inputs):
        return self.function(*inputs)


# params in millions and "Flops(G)" of MMClassification's model zoo, which mmcv's counter made
@pytest.mark.parametrize(
    ("name", "params", "gigamacs"),
    [("resnet18", 11.69, 1.82), ("resnet34", 21.8, 3.68), ("resnet50", 25.56, 4.12), ("resnet101", 44.55, 7.85)],
)
def test_mmcv_counts_are_those_of_the_model_zoo_that_mmcv_counted(name, params, gigamacs):
    assert round(count(name).params / 1e6, 2) == params
    assert round(count(name).macs_mmcv / 1e9, 2) == gigamacs


@pytest.mark.parametrize(
    ("name", "options", "gigamacs"),
    [
        ("ddf_resnet18", {}, "0.355"),
        ("ddf_resnet38", {}, "1.85"),
        ("ddf_resnet50", {}, "2.267"),
        ("ddf_resnet50", {"squeeze_ratio": 0.3}, "2.268"),
        ("ddf_resnet50", {"squeeze_ratio": 0.4}, "2.269"),
        ("ddf_resnet101", {}, "4.03"),
        ("resnet18", {}, "1.8"),
        ("resnet38", {}, "3.2"),
        ("resnet50", {}, "4.1"),
        ("resnet50", {"stride_in": "conv1"}, "3.858"),
        ("resnet101", {}, "7.8"),
    ],
)
def test_core_counts_of_the_papers_models(name, options, gigamacs):
    digits = len(gigamacs.partition(".")[2])
    assert f"{count(name, **options).macs_core / 1e9:.{digits}f}" == gigamacs


def test_convolution_counts_what_one_output_needs_times_outputs():
    outputs = 8 * 10 * 16
    conv = functools.partial(Conv, 12, 16, kernel_size=5, stride=2, use_bias=True)
    assert layer_cost(conv, (1, 15, 20, 12)) == (outputs * 25 * 12, outputs * (25 * 12 + 1))
    grouped = functools.partial(nnx.Conv, 12, 16, (3, 3), feature_group_count=4, use_bias=False)
    assert layer_cost(grouped, (1, 8, 10, 12)) == (outputs * 9 * 3,) * 2
    depthwise = functools.partial(nnx.Conv, 16, 16, (3, 3), feature_group_count=16, kernel_dilation=2, use_bias=False)
    assert layer_cost(depthwise, (1, 8, 10, 16)) == (outputs * 9,) * 2
    transposed = functools.partial(nnx.ConvTranspose, 12, 16, (4, 4), (2, 2), use_bias=False)
    assert layer_cost(transposed, (1, 4, 5, 12)) == (4 * 5 * 12 * 16 * 16,) * 2  # every input meets every weight once


def test_matrix_products_count_however_they_are_spelled():
    linear = functools.partial(nnx.Linear, 12, 16)
    assert layer_cost(linear, (3, 12)) == (3 * 12 * 16, 3 * 12 * 16 + 3 * 16)
    einsum = functools.partial(nnx.Einsum, "bhwc,cd->bhwd", (12, 16), (16,))
    with flax_promotion():
        assert layer_cost(einsum, (1, 8, 10, 12)) == (80 * 12 * 16, 80 * 12 * 16 + 80 * 16)


def test_products_of_two_activations_are_core_alone():
    attention = functools.partial(jnp.einsum, "bqc,bkc->bqk")
    assert cost(attention, (2, 5, 8), (2, 5, 8)) == (2 * 5 * 5 * 8, 0)
    generated = functools.partial(jax.lax.conv, window_strides=(1, 1), padding="SAME")
    assert cost(generated, (1, 3, 8, 8), (4, 3, 3, 3)) == (8 * 8 * 4 * 3 * 9, 0)


def test_differences_of_two_values_of_the_input_are_counted_on_their_own():
    image, pixel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 8, 10, 12), (1, 1, 1, 12)))
    counts = complexity(Stateless(lambda x, y: x - y + (x - 1.0) - jnp.ones((1, 1, 1, 12))), image, pixel)
    assert counts == Complexity(0, 0, 0, 0, differences=8 * 10 * 12)
    assert counts.macs_san == counts.differences


def test_products_with_constants_are_free():
    assert cost(lambda x: x @ jnp.ones((3, 5)), (8, 3)) == (0, 0)


def test_resizing_counts_its_outputs():
    assert cost(lambda x: jax.image.resize(x, (1, 16, 16, 3), "bilinear"), (1, 8, 8, 3)) == (0, 16 * 16 * 3)


def test_operations_on_parameters_alone_are_free():
    class Standardized(nnx.Module):
        def __init__(self, rngs):
            self.kernel = nnx.Param(jnp.ones((12, 16)))

        def __call__(self, x):
            return x @ (self.kernel[...] @ jnp.ones((16, 16)))

    assert layer_cost(Standardized, (3, 12)) == (3 * 12 * 16,) * 2


@pytest.mark.parametrize("norm", [BatchNorm, nnx.BatchNorm])
def test_batch_norm_counts_two_for_each_value(norm):
    with flax_promotion():
        assert layer_cost(functools.partial(norm, 16), (2, 8, 10, 16)) == (0, 2 * 2 * 8 * 10 * 16)


def test_filter_norm_counts_nothing():
    norm = functools.partial(FilterNorm, (9, 16), tap_axis=-2, learned=True, learned_mean=True)
    assert layer_cost(norm, (2, 9, 16)) == (0, 0)


def test_relu_counts_one_for_each_value_also_under_jit_and_checkpoint():
    size = 2 * 8 * 10
    assert cost(jax.nn.relu, (2, 8, 10)) == (0, size)
    assert cost(jax.jit(jax.checkpoint(lambda x: jax.nn.relu(x * 2))), (2, 8, 10)) == (0, size)
    assert cost(lambda x: jnp.maximum(x, -x), (2, 8, 10)) == (0, 0)


def test_pooling_counts_its_inputs():
    size = 8 * 10 * 16
    assert cost(lambda x: nnx.max_pool(x, (3, 3), (2, 2), padding="SAME"), (1, 8, 10, 16)) == (0, size)
    with flax_promotion():
        assert cost(lambda x: nnx.avg_pool(x, (2, 2), (2, 2)), (1, 8, 10, 16)) == (0, size)
    assert cost(lambda x: x.mean((1, 2)), (1, 8, 10, 16)) == (0, size)
    assert cost(lambda x: x.mean(-1), (1, 8, 10, 16)) == (0, 0)


@pytest.mark.parametrize("combine", ["mul", "add"])
def test_dynamic_filter_counts_its_taps_for_each_output(combine):
    options = {"stride": 2, "combine": combine}
    taps, x, spatial, channel = 25, (1, 15, 20, 12), (1, 8, 10, 3, 25), (1, 25, 12)
    expected = (8 * 10 * 12 * taps, 0)
    assert cost(lambda x, s, c: dynamic_filter(x, s, c, **options), x, spatial, channel) == expected
    assert cost(lambda x, s: dynamic_filter(x, s, None, **options), x, spatial) == expected
    assert cost(lambda x, c: dynamic_filter(x, None, c, **options), x, channel) == expected


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_dynamic_upsample_counts_every_sub_pixel(implementation):
    upsample = functools.partial(dynamic_upsample, scale=2, implementation=implementation)
    assert cost(upsample, (1, 8, 10, 12), (1, 8, 10, 4, 1, 9), (1, 4, 9, 12)) == (8 * 10 * 4 * 12 * 9, 0)


def test_correlation_counts_its_taps_for_each_value_of_the_query_and_attention_twice_as_many():
    maps = (1, 8, 10, 12), (1, 8, 10, 12)
    correlation = functools.partial(local_correlation, kernel_size=(3, 5), groups=4)
    assert cost(correlation, *maps) == (8 * 10 * 12 * 15, 0)
    for border in ("mask", "shift"):  # whatever the composition computes
        attention = functools.partial(neighborhood_attention, kernel_size=(3, 5), num_heads=4, border=border)
        assert cost(attention, *maps, maps[0]) == (2 * 8 * 10 * 12 * 15, 0)


def test_dynamic_filters_are_counted_on_their_own_too():
    involution = nnx.eval_shape(lambda: Involution(32, kernel_size=7, rngs=nnx.Rngs(0)))
    twice = complexity(nnx.Sequential(involution, involution), jax.ShapeDtypeStruct((1, 8, 10, 32), jnp.float32))
    assert twice.macs_dynamic == 2 * 8 * 10 * 32 * 49
    assert twice.macs_core - twice.macs_dynamic == 2 * 8 * 10 * (32 * 8 + 8 * 2 * 49)


def test_sizes_add_and_subtract():
    one, other = Complexity(1, 2, 3, 4), Complexity(5, 7, 9, 11)
    assert total([one, other]) == one + other == Complexity(6, 9, 12, 15)
    assert one + other - other == one
    assert 3 * one == Complexity(3, 6, 9, 12)


def test_ddf_module_counts_branches_and_filter():
    channels, squeezed, pixels, taps = 20, 4, 8 * 10, 9
    spatial, channel = pixels * channels * taps, channels * squeezed + squeezed * taps * channels
    biases = pixels * taps + squeezed + taps * channels
    core, mmcv = layer_cost(functools.partial(DDF, channels), (1, 8, 10, channels))
    assert core == spatial + channel + pixels * channels * taps
    assert mmcv == spatial + channel + biases + squeezed + pixels * channels  # … + ReLU + pooling


def test_loops_count_their_rounds_and_branches_the_dearest():
    class Layers(nnx.Module):
        def __init__(self, run):
            self.weights = nnx.Param(jnp.ones((7, 12, 12)))
            self.run = run

        def __call__(self, x):
            return self.run(x, self.weights[...])

    def rounds(run) -> float:
        core, mmcv = layer_cost(lambda rngs: Layers(run), (3, 12))
        assert core == mmcv
        return core / (3 * 12 * 12)

    assert rounds(lambda x, w: jax.lax.scan(lambda carry, layer: (carry @ layer, None), x, w)[0]) == 7
    assert rounds(lambda x, w: jax.lax.fori_loop(0, 5, lambda i, y: y @ w[0], x)) == 5
    assert rounds(lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w[0] @ w[1], lambda: x @ w[0])) == 2
    with pytest.raises(NotImplementedError, match="while_loop"):
        rounds(lambda x, w: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y @ w[0], x))


def test_counting_makes_no_array_and_works_on_real_ones():
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    abstract = nnx.eval_shape(lambda: nnx.Linear(4, 3, rngs=nnx.Rngs(0)))
    image = jax.ShapeDtypeStruct((1, 4), jnp.float32)
    before = len(jax.live_arrays())
    assert complexity(abstract, image) == complexity(model, image)
    assert len(jax.live_arrays()) == before
