"""What every layer does with the dtype and the shape of its input, and with its options."""

import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxprs_in_params
from jax.sharding import NamedSharding, PartitionSpec

from ddf_jax import layers
from ddf_jax.errors import UserError

C = 8
# Of every layer the sizes, then an integer for each option that takes one.
OPTIONS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "AttentionAugmentedConv": (
        (C, 12),
        {"kernel_size": 5, "stride": 2, "heads": 2, "key_channels": 8, "value_channels": 4, "size": 3},
    ),
    "AxialAttention": ((C,), {"length": 5, "stride": 2, "heads": 2, "span": 3}),
    "BAM": ((C,), {"reduction": 2, "dilation": 2}),
    "BatchNorm": ((C,), {}),
    "Bilinear": ((C,), {"scale": 3}),
    "BlockAttention": ((C, 12), {"block_size": 3, "stride": 2, "heads": 2, "mixtures": 2}),
    "Bivolution": (
        (C,),
        {"stride": 2, "static_kernel_size": 5, "static_groups": 2, "context_dilation": 2, "context_reduction": 2},
    ),
    "CARAFE": ((C,), {"scale": 2, "kernel_size": 3, "groups": 2, "compressed_channels": 4, "encoder_dilation": 2}),
    "CBAM": ((C,), {"reduction": 2, "kernel_size": 3}),
    "CondConv": ((C, 12), {"kernel_size": 1, "stride": 2, "dilation": 2, "experts": 3}),
    "Conv": ((C, 12), {"kernel_size": 5, "stride": 2, "dilation": 2, "groups": 2}),
    "DCD": ((C, 12), {"kernel_size": 5, "stride": 2, "dilation": 2}),
    "DCDC": (
        (C,),
        {"kernel_size": 3, "stride": 2, "context_kernel_size": 5, "shared_kernel_size": 3, "group_channels": 4},
    ),
    "DDF": ((C,), {"kernel_size": 3, "stride": 2, "dilation": 2, "heads": 2}),
    "DDFUp": ((C,), {"scale": 1, "kernel_size": 3, "dilation": 2, "heads": 2, "guidance_kernel_size": 1}),
    "Deconvolution": ((C,), {"scale": 3, "kernel_size": 7}),
    "DepthwiseCondConv": ((C,), {"kernel_size": 3, "stride": 2, "dilation": 2, "experts": 3}),
    "DepthwiseWeightNet": ((C,), {"kernel_size": 3, "stride": 2, "dilation": 2, "reduction": 2}),
    "DynamicConv": ((C, 12), {"kernel_size": 1, "stride": 2, "dilation": 2, "experts": 3, "reduction": 2}),
    "ECA": ((C,), {"kernel_size": 5}),
    "FCA": ((C,), {"size": 9, "frequencies": 4, "reduction": 2}),
    "FullDynamicFilter": ((C,), {"kernel_size": 5}),
    "Involution": ((C,), {"kernel_size": 3, "stride": 2, "dilation": 2, "group_channels": 4, "reduction": 2}),
    "LayerNorm": ((C,), {}),
    "Linear": ((C, 12), {}),
    "LocalRelation": ((C,), {"kernel_size": 3, "stride": 2, "group_channels": 4, "hidden": 2}),
    "Nearest": ((C,), {"scale": 3}),
    "NeighborhoodAttention": ((C,), {"heads": 2, "kernel_size": 3, "dilation": 1}),
    "ODConv": (
        (C, 12),
        {"kernel_size": 5, "stride": 2, "dilation": 2, "kernels": 3, "reduction": 2, "min_hidden": 4},
    ),
    "PAC": ((C,), {"kernel_size": 3, "stride": 2, "dilation": 2}),
    "PACUp": ((C,), {"scale": 2, "kernel_size": 3}),
    "PixelShuffle": ((C,), {"scale": 3, "kernel_size": 1}),
    "PointwiseConv": ((C, 12), {"stride": 2}),
    "SelfAttention": ((C, 12), {"kernel_size": 3, "stride": 2, "heads": 2}),
    "SelfAttentionModule": (
        (C, 12),
        {"kernel_size": 3, "stride": 2, "dilation": 2, "group_channels": 4, "reduction": 2},
    ),
    "SpatialAugmentation": ((C,), {"context_kernel_size": 5, "dilation": 2, "reduction": 2}),
    "SqueezeExcitation": ((C,), {"reduction": 2}),
}


COMPUTED_WIDE = ("Bilinear", "BlockAttention", "LocalRelation")  # weights of pixels, logits of places
QUICK = ("DDF", "ODConv", "PACUp", "PixelShuffle", "SelfAttention")
OF_ANY_RANK = ("BatchNorm", "LayerNorm", "Linear")


@functools.cache
def made(name: str, *, numpy: bool = False, dtype: Any = None) -> Any:
    """The layer without arrays, in evaluation mode, with its options as NumPy's integers if `numpy`."""
    sizes, options = OPTIONS[name]
    if numpy:
        sizes, options = tuple(map(np.int64, sizes)), {key: np.int64(value) for key, value in options.items()}
    if name == "Bivolution":
        options = {**options, "dynamic": functools.partial(layers.Involution, kernel_size=3, group_channels=4)}
    layer = nnx.eval_shape(lambda: getattr(layers, name)(*sizes, dtype=dtype, rngs=nnx.Rngs(0), **options))
    layer.eval()
    return layer


def traced(layer: Any, shape: tuple[int, ...], dtype: Any) -> ClosedJaxpr:
    structure, state = nnx.split(layer)
    return jax.make_jaxpr(lambda state, x: nnx.merge(structure, state)(x))(state, jax.ShapeDtypeStruct(shape, dtype))


def equations(program: Jaxpr) -> Iterator[JaxprEqn]:
    for equation in program.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def test_every_layer_is_here():
    others = {"CostVolume", "FilterNorm", "FilterBatchNorm", "FilterSigmoid"}  # of two maps, and of filters
    assert {name for name, value in vars(layers).items() if inspect.isclass(value)} == {*OPTIONS, *others}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_layer_computes_in_the_dtype_of_its_input_or_in_the_one_asked_for(name):
    for asked, given in ((None, jnp.bfloat16), (jnp.bfloat16, jnp.float32)):
        program = traced(made(name, dtype=asked), (2, 5, 7, C), given)
        assert program.out_avals[0].dtype == jnp.bfloat16
        for equation in equations(program.jaxpr):
            if name not in COMPUTED_WIDE and equation.primitive.name in ("dot_general", "conv_general_dilated"):
                operands: Any = [operand.aval for operand in equation.invars]
                # The channel branch of DDF, with one row for each sample, computes in float32.
                small = name in ("DDF", "DDFUp") and len(operands[0].shape) == operands[0].shape[0] == 2
                expected = jnp.dtype(jnp.float32 if small else jnp.bfloat16)
                assert {operand.dtype for operand in operands} == {expected}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OPTIONS]
)
def test_a_layer_keeps_its_batch_on_the_axes_that_make_mesh_makes(name):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])  # Explicit ones, and no context
    whole, split = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("data")))
    structure, state = nnx.split(made(name))
    state = jax.tree.map(lambda leaf: leaf.update(sharding=whole), state)
    x = jax.ShapeDtypeStruct((2, 6, 8, C), jnp.float32, sharding=split)

    def loss(state: Any, x: Any) -> tuple[jax.Array, jax.Array]:
        y = nnx.merge(structure, state, copy=True)(x)
        return jnp.square(y).mean(), y

    gradients, y = jax.eval_shape(jax.grad(loss, argnums=(0, 1), has_aux=True, allow_int=True), state, x)
    assert [each.sharding.spec[0] for each in (y, gradients[1])] == ["data"] * 2
    assert not any(any(leaf.sharding.spec) for leaf in jax.tree.leaves(gradients[0]))


@pytest.mark.parametrize("name", ["Conv", "Involution", "BatchNorm", "Bilinear", "Nearest"])
def test_a_layer_takes_the_integers_of_an_image(name):
    expected = jnp.uint8 if name == "Nearest" else jnp.float32
    assert traced(made(name), (2, 5, 7, C), jnp.uint8).out_avals[0].dtype == expected


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in OF_ANY_RANK])
def test_an_input_of_another_rank_layout_or_number_of_channels_is_named(name):
    for shape, advice in (
        ((5, 7, C), r"The batch axis is missing: pass \w+\[None\]"),
        ((2, C, 5, 7), r"pass \w+.transpose\(0, 2, 3, 1\)"),
        ((2, 5, 7, 3), "Make the layer for 3 channels"),
        ((1, 2, 5, 7, C), "with jax.vmap"),
    ):
        message = rf"must be \[B, H, W, C\] with C = {C}, got {re.escape(str(shape))}\. .*{advice}"
        with pytest.raises(UserError, match=message):
            traced(made(name), shape, jnp.float32)


@pytest.mark.parametrize("name", OF_ANY_RANK)
def test_an_input_of_another_number_of_channels_is_named(name):
    for shape, advice in (((2, 1), "for 1 channels"), ((2, C, 5), "moveaxis"), ((C,), "batch axis"), ((), "Make")):
        with pytest.raises(
            UserError, match=rf"must be \[B, …, C\] with C = {C}, got {re.escape(str(shape))}.*{advice}"
        ):
            traced(made(name), shape, jnp.float32)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_size_that_is_no_count_is_named(name):
    sizes, options = OPTIONS[name]
    for option in options:
        for value in (0, (2, 2), 1.0):
            with pytest.raises(UserError, match=rf"`{option}` must be an int ≥ 1, got {re.escape(repr(value))}\."):
                getattr(layers, name)(*sizes, rngs=nnx.Rngs(0), **{**options, option: value})
    with pytest.raises(UserError, match=r"must be an int ≥ 1, got 0\."):
        getattr(layers, name)(0, *sizes[1:], rngs=nnx.Rngs(0), **options)


WINDOWS = ("LocalRelation", "NeighborhoodAttention", "SelfAttention", "SelfAttentionModule", "FullDynamicFilter")


@pytest.mark.parametrize("name", [*WINDOWS, "Conv", "DCD", "ECA", "ODConv"])
def test_a_window_without_a_middle_is_refused(name):
    sizes, options = OPTIONS[name]
    with pytest.raises(UserError, match=r"`kernel_size` must be odd, got 4\."):
        nnx.eval_shape(lambda: getattr(layers, name)(*sizes, rngs=nnx.Rngs(0), **{**options, "kernel_size": 4}))


def test_maps_of_different_shapes_have_no_cost_volume():
    first = jnp.zeros((2, 5, 7, C))
    for second in (first[:, :3], first[..., :4]):
        message = rf"`second` must have the shape of `first`, {re.escape(str(first.shape))}, got"
        with pytest.raises(UserError, match=message):
            layers.CostVolume(4)(first, second)
    with pytest.raises(UserError, match=r"`first` must be \[B, H, W, C\], got \(5, 7, 8\)"):
        layers.CostVolume(4)(first[0], first[0])


@pytest.mark.parametrize("name", OPTIONS)
def test_integers_of_numpy_are_options_like_any(name):
    assert nnx.graphdef(made(name, numpy=True)) == nnx.graphdef(made(name))
