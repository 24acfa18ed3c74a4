"""The port's layers: the formulas of the papers, the names of the official repositories, any size and dtype."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from ddf_jax.torch_port import CARAFE, DDF, DDFUp, FilterNorm, Involution, dynamic_filter


def random(*shape, seed=0):
    return torch.tensor(np.random.RandomState(seed).standard_normal(shape))


def names(module):
    return {name: tuple(value.shape) for name, value in module.named_parameters()}


@pytest.mark.parametrize(("nonlinearity", "gain"), [("linear", 1.0), ("relu", 2.0**0.5)])
def test_filter_norm_gives_every_filter_the_same_mean_and_deviation(nonlinearity, gain):
    y = FilterNorm(4, 3, nonlinearity=nonlinearity)(random(2, 36, 5, 7)).reshape(2, 4, 9, 5, 7)
    torch.testing.assert_close(y.mean(2), torch.zeros_like(y.mean(2)))
    torch.testing.assert_close(y.std(2, correction=1), torch.full_like(y.mean(2), gain / 3), rtol=1e-9, atol=0)


def test_filter_norm_learns_a_scale_and_a_mean_per_tap():
    norm = FilterNorm(4, 3, learned_std=True, learned_mean=True).double()
    x = random(2, 36)
    assert norm.std is not None
    assert norm.mean is not None
    plain = FilterNorm(4, 3)(x) * 3  # without the constant gain 1/K
    torch.testing.assert_close(norm(x), plain * norm.std + norm.mean)


def test_filter_norm_of_a_constant_half_precision_filter_is_finite():
    x = torch.ones(1, 9, dtype=torch.float16, requires_grad=True)
    y = FilterNorm(1, 3)(x)
    y.sum().backward()
    assert y.dtype == torch.float16
    assert torch.isfinite(y).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_ddf_has_the_official_names_and_the_counted_parameters():
    ddf = DDF(256)
    assert names(ddf) == {
        "spatial_branch.0.weight": (9, 256, 1, 1),
        "spatial_branch.0.bias": (9,),
        "channel_branch.1.weight": (51, 256, 1, 1),
        "channel_branch.1.bias": (51,),
        "channel_branch.3.weight": (2304, 51, 1, 1),
        "channel_branch.3.bias": (2304,),
        "channel_branch.4.std": (2304,),
    }
    assert sum(value.numel() for value in ddf.parameters()) == 137_532


@pytest.mark.parametrize("combine", ["mul", "add"])
@pytest.mark.parametrize(("heads", "stride", "dilation"), [(1, 1, 1), (2, 2, 1), (4, 1, 2), (1, 3, 1)])
def test_ddf_is_its_two_branches_and_the_operator(combine, heads, stride, dilation):
    ddf = DDF(8, heads=heads, stride=stride, dilation=dilation, combine=combine).double()
    x = random(2, 8, 7, 5)
    parameters = dict(ddf.named_parameters())

    def dense(x, name):
        return (
            torch.einsum("bihw,oi->bohw", x, parameters[f"{name}.weight"][:, :, 0, 0])
            + (parameters[f"{name}.bias"][:, None, None])
        )

    def normalise(filters):  # [..., T]
        return (filters - filters.mean(-1, keepdim=True)) / (filters.std(-1, keepdim=True) + 1e-10)

    spatial = dense(x[:, :, ::stride, ::stride], "spatial_branch.0")
    spatial = spatial.unflatten(1, (heads, 9)).movedim(2, -1)
    spatial = (normalise(spatial) * 2**0.5 / 3).movedim(-1, 2)
    squeezed = functional.relu(dense(x.mean((2, 3), keepdim=True), "channel_branch.1"))
    channel = normalise(dense(squeezed, "channel_branch.3").reshape(2, 8, 9))
    channel = channel * parameters["channel_branch.4.std"].reshape(8, 9)
    expected = dynamic_filter(x, spatial, channel, stride=stride, dilation=dilation, combine=combine)
    torch.testing.assert_close(ddf(x), expected)


@pytest.mark.parametrize("guidance_channels", [None, 5])
@pytest.mark.parametrize("guidance_kernel_size", [None, 1, 5])
def test_ddf_up_has_the_official_names_and_enlarges(guidance_channels, guidance_kernel_size):
    options = {"guidance_channels": guidance_channels, "guidance_kernel_size": guidance_kernel_size}
    up = DDFUp(8, scale=2, heads=2, **options).double()
    depthwise = guidance_kernel_size or (1 if guidance_channels else 3)
    source = guidance_channels or 8
    generator = "spatial_branch.3.0" if depthwise == 1 else "spatial_branch.3.1"
    expected = {
        f"{generator}.weight": (18, source, 1, 1),
        f"{generator}.bias": (18,),
        "channel_branch.3.1.weight": (1, 8, 1, 1),
        "channel_branch.3.3.weight": (72, 1, 1, 1),
        "channel_branch.3.4.std": (72,),
    }
    if depthwise > 1:
        expected["spatial_branch.3.0.weight"] = (source, 1, depthwise, depthwise)
    assert expected.items() <= names(up).items()
    assert len(names(up)) == 4 * (2 + 5 + 2 * (depthwise > 1))
    guidance = None if guidance_channels is None else random(2, guidance_channels, 7, 3, seed=1)
    assert up(random(2, 8, 7, 3), guidance).shape == (2, 8, 14, 6)


def test_involution_has_the_official_names():
    assert names(Involution(32, 3)) == {
        "conv1.conv.weight": (8, 32, 1, 1),
        "conv1.bn.weight": (8,),
        "conv1.bn.bias": (8,),
        "conv2.conv.weight": (18, 8, 1, 1),
        "conv2.conv.bias": (18,),
    }


@pytest.mark.parametrize(("stride", "size"), [(1, (5, 4)), (2, (6, 4)), (2, (5, 7))])
def test_involution_filters_with_what_it_generates(stride, size):
    layer = Involution(32, 3, stride=stride).double().eval()
    x = random(2, 32, *size)
    padded = functional.pad(x, (0, -size[1] % stride, 0, -size[0] % stride))
    counted = functional.pad(torch.ones_like(x), (0, -size[1] % stride, 0, -size[0] % stride))
    pooled = functional.avg_pool2d(padded, stride) / functional.avg_pool2d(counted, stride)
    filters = layer.conv2(layer.conv1(pooled)).unflatten(1, (2, 9))
    torch.testing.assert_close(layer(x), dynamic_filter(x, filters, None, stride=stride))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "make", [lambda: DDF(16, stride=2), lambda: DDFUp(16), lambda: CARAFE(16), lambda: Involution(16, stride=2).eval()]
)
def test_layers_run_in_half_precision_at_odd_sizes(make, dtype):
    layer = make().to(dtype)
    x = random(2, 16, 7, 5).to(dtype).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert x.grad is not None
    assert y.dtype == x.grad.dtype == dtype
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(value.grad).all() for value in layer.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FilterNorm(3, 1), "`kernel_size` must be at least 2"),
        (lambda: DDF(4, squeeze_ratio=0.2), "`squeeze_ratio` must leave a channel, got 0.2 of in_channels=4"),
        (lambda: Involution(24), "`group_channels` must divide `channels`, got 16 and 24"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
