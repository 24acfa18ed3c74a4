"""Our operators and layers against the port's, in float64, with options that no registered network uses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax.test_util import check_grads

import pallas_kernels
from ddf_jax import layers, torch_port
from ddf_jax.checkpoints.conversion import load_tensors
from ddf_jax.verify.random_inputs import random_weights
from tests.with_torch.test_operators import CASES, inputs


def to_ours(x, spatial, channel):
    """Channels last: x [B, H, W, C], spatial [B, Ho, Wo, G, T], channel [B, T, C]."""
    return x.transpose(0, 2, 3, 1), spatial.transpose(0, 3, 4, 1, 2), channel.transpose(0, 2, 1)


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * np.abs(theirs).max())


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("implementation", ["xla", "reference"])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation", "groups", "combine"), CASES)
def test_operator_and_its_gradients_are_the_ports(kernel_size, stride, dilation, groups, combine, implementation):
    options = {"stride": stride, "dilation": dilation, "combine": combine}
    tensors = inputs(kernel_size, stride, groups)
    theirs = torch_port.dynamic_filter(*tensors, **options)
    cotangent = torch.tensor(np.random.RandomState(7).standard_normal(theirs.shape))
    theirs.backward(cotangent)

    arrays = to_ours(*(tensor.detach().numpy() for tensor in tensors))
    run = jax.jit(functools.partial(pallas_kernels.dynamic_filter, **options, implementation=implementation))
    ours, pull_back = jax.vjp(run, *map(jnp.asarray, arrays))
    close(ours, theirs.detach().numpy().transpose(0, 2, 3, 1))
    gradients = pull_back(jnp.asarray(cotangent.numpy().transpose(0, 2, 3, 1)))
    expected = to_ours(*(np.asarray(tensor.grad) for tensor in tensors))
    for gradient, value in zip(gradients, expected, strict=True):
        close(gradient, value)


@pytest.mark.parametrize("implementation", ["xla", pytest.param("reference", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation", "groups", "combine"), CASES)
def test_operator_gradients_equal_finite_differences(kernel_size, stride, dilation, groups, combine, implementation):
    arrays = to_ours(*(tensor.detach().numpy() for tensor in inputs(kernel_size, stride, groups)))
    run = functools.partial(
        pallas_kernels.dynamic_filter,
        stride=stride,
        dilation=dilation,
        combine=combine,
        implementation=implementation,
    )
    check_grads(jax.jit(run), tuple(map(jnp.asarray, arrays)), order=1, modes=["rev"], atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("combine", ["mul", "add"])
def test_upsampling_and_its_gradients_are_the_ports(scale, combine):
    random = np.random.RandomState(3)
    shapes = ((2, 4, 3, 5), (2, scale**2, 2, 9, 3, 5), (2, scale**2, 4, 9))
    tensors = [torch.tensor(random.standard_normal(shape), requires_grad=True) for shape in shapes]
    theirs = torch_port.dynamic_upsample(*tensors, scale=scale, combine=combine)
    cotangent = torch.tensor(random.standard_normal(theirs.shape))
    theirs.backward(cotangent)

    def to_ours(x, spatial, channel):
        return x.transpose(0, 2, 3, 1), spatial.transpose(0, 4, 5, 1, 2, 3), channel.transpose(0, 1, 3, 2)

    run = jax.jit(functools.partial(pallas_kernels.dynamic_upsample, scale=scale, combine=combine))
    arrays = to_ours(*(tensor.detach().numpy() for tensor in tensors))
    ours, pull_back = jax.vjp(run, *map(jnp.asarray, arrays))
    close(ours, theirs.detach().numpy().transpose(0, 2, 3, 1))
    gradients = pull_back(jnp.asarray(cotangent.numpy().transpose(0, 2, 3, 1)))
    expected = to_ours(*(np.asarray(tensor.grad) for tensor in tensors))
    for gradient, value in zip(gradients, expected, strict=True):
        close(gradient, value)


@pytest.mark.parametrize("combine", ["mul", "add"])
@pytest.mark.parametrize(
    "options",
    [{"heads": 4, "stride": 2}, {"kernel_size": 5, "dilation": 2, "heads": 2}, {"kernel_size": 7, "stride": 3}],
)
def test_the_ddf_layer_is_the_ports(options, combine):
    theirs = torch_port.DDF(8, combine=combine, squeeze_ratio=0.4, **options).double()
    place = "layer1.0.conv2"  # where the rules know a DDF
    shapes = {f"{place}.{name}": tuple(value.shape) for name, value in theirs.named_parameters()}
    weights = random_weights(shapes, margin=0.0)
    theirs.load_state_dict({name.removeprefix(f"{place}."): torch.tensor(value) for name, value in weights.items()})

    class Place(nnx.Module):
        def __init__(self):
            dtypes = {"dtype": jnp.float64, "param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
            layer = layers.DDF(8, combine=combine, squeeze_ratio=0.4, **options, **dtypes)
            self.stages = nnx.List([nnx.List([nnx.Dict(conv2=layer)])])

    ours = Place()
    load_tensors(ours, weights, "random")
    x = np.random.RandomState(5).standard_normal((2, 8, 9, 7))
    expected = theirs(torch.tensor(x)).detach().numpy()
    close(nnx.jit(ours.stages[0][0]["conv2"])(jnp.asarray(x.transpose(0, 2, 3, 1))), expected.transpose(0, 2, 3, 1))
