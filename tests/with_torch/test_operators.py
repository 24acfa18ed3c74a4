"""The port's operators against loops over the formula, and their autograd against finite differences."""

import itertools

import numpy as np
import pytest
import torch

from ddf_jax.torch_port import dynamic_filter, dynamic_upsample

CASES = [
    # kernel size, stride, dilation, groups, combine
    (1, 1, 1, 1, "mul"),
    (1, 2, 1, 2, "add"),
    (3, 1, 1, 1, "mul"),
    (3, 2, 1, 2, "mul"),
    (3, 3, 2, 4, "add"),
    (5, 1, 2, 2, "add"),
    (5, 2, 1, 4, "mul"),
    (7, 2, 1, 1, "add"),
    (7, 1, 1, 2, "mul"),
]


def inputs(kernel_size, stride, groups, *, size=(5, 4), channels=4, seed=0):
    rng = np.random.RandomState(seed)
    height, width = size
    out = (-(-height // stride), -(-width // stride))
    x = rng.standard_normal((2, channels, height, width))
    spatial = rng.standard_normal((2, groups, kernel_size**2, *out))
    channel = rng.standard_normal((2, channels, kernel_size**2))
    return [torch.tensor(value, requires_grad=True) for value in (x, spatial, channel)]


def loop(x, spatial, channel, *, kernel_size=3, stride=1, dilation=1, combine="mul"):
    """The formula, one scalar at a time."""
    batch, channels, height, width = x.shape
    out_height, out_width = -(-height // stride), -(-width // stride)
    y = np.zeros((batch, channels, out_height, out_width))
    for b, c, i, j, u, v in itertools.product(
        range(batch), range(channels), range(out_height), range(out_width), range(kernel_size), range(kernel_size)
    ):
        row = stride * i + dilation * (u - kernel_size // 2)
        column = stride * j + dilation * (v - kernel_size // 2)
        if not (0 <= row < height and 0 <= column < width):
            continue
        tap = u * kernel_size + v
        neutral = 1.0 if combine == "mul" or spatial is None or channel is None else 0.0
        per_pixel = neutral if spatial is None else spatial[b, c // (channels // spatial.shape[1]), tap, i, j]
        per_channel = neutral if channel is None else channel[b, c, tap]
        both = spatial is not None and channel is not None and combine == "add"
        y[b, c, i, j] += (per_pixel + per_channel if both else per_pixel * per_channel) * x[b, c, row, column]
    return y


@pytest.mark.parametrize(("kernel_size", "stride", "dilation", "groups", "combine"), CASES)
@pytest.mark.parametrize("without", [None, "spatial", "channel"])
def test_equals_the_formula(kernel_size, stride, dilation, groups, combine, without):
    tensors = inputs(kernel_size, stride, groups)
    x, spatial, channel = (tensor.detach() for tensor in tensors)
    spatial = None if without == "spatial" else spatial
    channel = None if without == "channel" else channel
    y = dynamic_filter(x, spatial, channel, stride=stride, dilation=dilation, combine=combine)
    filters = [None if value is None else value.numpy() for value in (spatial, channel)]
    expected = loop(x.numpy(), *filters, kernel_size=kernel_size, stride=stride, dilation=dilation, combine=combine)
    np.testing.assert_allclose(y.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kernel_size", "stride", "dilation", "groups", "combine"), CASES)
def test_gradients_equal_finite_differences(kernel_size, stride, dilation, groups, combine):
    x, spatial, channel = inputs(kernel_size, stride, groups, size=(4, 3))

    def apply(x, spatial, channel):
        return dynamic_filter(x, spatial, channel, stride=stride, dilation=dilation, combine=combine)

    # The whole Jacobian where it is small, random projections of it where it is large.
    torch.autograd.gradcheck(apply, (x, spatial, channel), fast_mode=kernel_size > 3)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize(("combine", "without"), [("mul", None), ("add", None), ("mul", "spatial"), ("mul", "channel")])
def test_upsampling_places_each_sub_pixel(scale, combine, without):
    rng = np.random.RandomState(1)
    x = torch.tensor(rng.standard_normal((2, 4, 3, 5)))
    spatial = torch.tensor(rng.standard_normal((2, scale**2, 2, 9, 3, 5)))
    channel = torch.tensor(rng.standard_normal((2, scale**2, 4, 9)))
    spatial = None if without == "spatial" else spatial
    channel = None if without == "channel" else channel
    y = dynamic_upsample(x, spatial, channel, scale=scale, combine=combine)
    for i, j in itertools.product(range(scale), range(scale)):
        filters = [None if value is None else value[:, i * scale + j].numpy() for value in (spatial, channel)]
        expected = loop(x.numpy(), *filters, combine=combine)
        np.testing.assert_allclose(y[:, :, i::scale, j::scale].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_in_float32(dtype):
    x, spatial, channel = (tensor.detach().to(dtype) for tensor in inputs(5, 2, 2))
    y = dynamic_filter(x, spatial, channel, stride=2)
    wide = dynamic_filter(x.double(), spatial.double(), channel.double(), stride=2)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), wide, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_inputs_may_differ_in_dtype():
    x, spatial, channel = (tensor.detach() for tensor in inputs(3, 1, 1))
    y = dynamic_filter(x.bfloat16(), spatial.float(), channel.half())
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"combine": "sub"}, "`combine` must be 'mul' or 'add', got 'sub'"),
        ({"stride": 0}, "at least 1, got stride=0"),
        ({"stride": 2}, r"= \(2, 2, 9, 3, 2\), got \(2, 2, 9, 5, 4\)"),
        ({"x": torch.zeros(2, 4, 5)}, r"`x` must be \[B, C, H, W\], got \(2, 4, 5\)"),
        (
            {"x": torch.zeros(2, 3, 5, 4)},
            "groups of `spatial` must divide the channels of `x`, got groups=2 and channels=3",
        ),
        ({"spatial": None, "channel": None}, "must not both be None"),
        ({"spatial": torch.zeros(2, 2, 4, 5, 4)}, "K² for an odd K, got 4"),
        ({"spatial": torch.zeros(2, 9, 5, 4)}, r"`spatial` must be \[B, G, T, Ho, Wo\], got \(2, 9, 5, 4\)"),
        ({"channel": torch.zeros(2, 4)}, r"`channel` must be \[B, C, T\], got \(2, 4\)"),
        ({"channel": torch.zeros(2, 4, 25)}, r"= \(2, 4, 9\), got \(2, 4, 25\)"),
    ],
)
def test_a_wrong_call_states_what_is_wrong(change, message):
    x, spatial, channel = (tensor.detach().float() for tensor in inputs(3, 1, 2))
    arguments = {"x": x, "spatial": spatial, "channel": channel} | change
    with pytest.raises(ValueError, match=message):
        dynamic_filter(**arguments)


def test_upsampling_needs_scale_squared_filters():
    with pytest.raises(ValueError, match="scale² = 9 along axis 1"):
        dynamic_upsample(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 1, 9, 3, 3), None, scale=3)
