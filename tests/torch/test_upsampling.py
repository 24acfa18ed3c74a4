"""DDF-Up and CARAFE against the port's, in float64: values, and the gradients of inputs and of every parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from ddf_jax import layers, torch_port
from ddf_jax.convert.checkpoint import load_tensors, named_arrays
from ddf_jax.convert.rules import translate
from ddf_jax.verify.weights import make_weights


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def close(ours, theirs, what):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max(), err_msg=what)


def compare(theirs: torch.nn.Module, ours, *shapes: tuple[int, ...]) -> None:
    """Both layers with the same weights, under the official names; `shapes` [B, C, H, W] are those of the inputs."""
    theirs = theirs.double()
    weights = make_weights({name: tuple(value.shape) for name, value in theirs.named_parameters()}, margin=0.0)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in weights.items()}, strict=True)
    dtypes = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    layer = nnx.eval_shape(lambda: ours(rngs=nnx.Rngs(0), **dtypes))
    load_tensors(layer, weights, "made up")

    random = np.random.RandomState(5)
    inputs = [torch.tensor(random.standard_normal(shape), requires_grad=True) for shape in shapes]
    expected = theirs(*inputs)
    cotangent = torch.tensor(random.standard_normal(expected.shape))
    expected.backward(cotangent)

    structure, state = nnx.split(layer)
    run = jax.jit(lambda state, *inputs: nnx.merge(structure, state)(*inputs))
    y, pull_back = jax.vjp(run, state, *(jnp.asarray(channels_last(x)) for x in inputs))
    close(y, channels_last(expected), "value")
    parameters, *gradients = pull_back(jnp.asarray(channels_last(cotangent)))
    for gradient, x in zip(gradients, inputs, strict=True):
        close(gradient, channels_last(x.grad), "gradient of an input")
    official = {name: value.grad.numpy() for name, value in theirs.named_parameters()}
    own = translate(official, "official")
    got = named_arrays(parameters)
    assert got.keys() == own.keys()
    scale = max(np.abs(value).max() for value in own.values())
    for name, value in own.items():
        # A bias that filter normalisation takes away again has no gradient but rounding.
        np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-10 * scale, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 1, "heads": 2},
        {"scale": 2, "combine": "add"},
        {"scale": 2, "kernel_size": 5, "dilation": 2, "heads": 4, "guidance_kernel_size": 1},
        {"scale": 3, "heads": 2, "guidance_kernel_size": 5},
        {"scale": 4},
        {"scale": 1, "guidance_channels": 5, "combine": "add"},
        {"scale": 2, "guidance_channels": 5, "heads": 2, "guidance_kernel_size": 3},
        {"scale": 3, "guidance_channels": 3},
        {"scale": 4, "guidance_channels": 3, "heads": 4},
    ],
    ids=str,
)
def test_ddf_up_is_the_ports(options):
    options = {"squeeze_ratio": 0.4, **options}
    guidance = [(2, options["guidance_channels"], 5, 3)] if "guidance_channels" in options else []
    theirs = torch_port.DDFUp(8, **options)
    compare(theirs, lambda **dtypes: layers.DDFUp(8, **options, **dtypes), (2, 8, 5, 3), *guidance)


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 1, "groups": 2},
        {"scale": 2},
        {"scale": 3, "kernel_size": 3, "groups": 4, "encoder_kernel_size": 5, "encoder_dilation": 2},
        {"scale": 4, "kernel_size": 3, "encoder_kernel_size": 1},
    ],
    ids=str,
)
def test_carafe_is_the_ports(options):
    options = {"compressed_channels": 6, **options}
    compare(torch_port.CARAFE(8, **options), lambda **dtypes: layers.CARAFE(8, **options, **dtypes), (2, 8, 5, 3))


def test_carafe_has_mmcvs_names():
    shapes = {name: tuple(value.shape) for name, value in torch_port.CARAFE(16, groups=2).named_parameters()}
    assert shapes == {
        "channel_compressor.weight": (64, 16, 1, 1),
        "channel_compressor.bias": (64,),
        "content_encoder.weight": (200, 64, 3, 3),
        "content_encoder.bias": (200,),
    }


def test_carafe_of_equal_logits_is_the_mean_of_what_it_sees():
    carafe = torch_port.CARAFE(2, scale=2, kernel_size=3).double()
    torch.nn.init.zeros_(carafe.content_encoder.weight)
    torch.nn.init.zeros_(carafe.content_encoder.bias)
    x = torch.tensor(np.random.RandomState(0).standard_normal((1, 2, 3, 5)))
    mean = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    torch.testing.assert_close(carafe(x), mean.repeat_interleave(2, 2).repeat_interleave(2, 3))
