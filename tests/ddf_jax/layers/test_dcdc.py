"""DCDC against its formula, each branch alone and both together."""

import functools
from typing import Any

import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import DCDC
from tests.ddf_jax.layers import formulas


def in_context(y: np.ndarray, p: dict) -> np.ndarray:
    """A depthwise convolution, normalisation and ReLU, then a 1×1 convolution."""
    context, pointwise = p["layers"][0], p["layers"][1]
    y = formulas.relu(formulas.norm(formulas.conv(y, context["conv"], groups=y.shape[-1]), context["norm"]))
    return formulas.linear(y, pointwise)


def local(x: np.ndarray, p: dict, stride: int, dilation: int) -> np.ndarray:
    p = p["spatial_branch"]
    y = formulas.relu(formulas.norm(in_context(formulas.average_pool(x, stride), p["reduce"]), p["norm"]))
    filters = in_context(y, p["span"])
    return formulas.spatial_filter(x, filters.reshape(*filters.shape[:3], 2, -1), stride=stride, dilation=dilation)


def shared(x: np.ndarray, p: dict, stride: int, dilation: int) -> np.ndarray:
    assert p["squeeze"].keys() == {"kernel"}
    y = formulas.relu(formulas.norm(formulas.linear(formulas.average_pool(x, stride), p["squeeze"]), p["norm"]))
    if "predict" in p["inner"]:
        kernels = formulas.linear(y.mean((1, 2)), p["inner"]["predict"]).reshape(len(y), 3, 3, 4, 4)
        y = np.concatenate([formulas.conv(y[[b]], {"kernel": kernels[b]}, dilation=dilation) for b in range(len(y))])
    else:
        y = formulas.conv(y, p["inner"], dilation=dilation)
    return formulas.linear(y, p["expand"])


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"shared": None, "dilation": 2},
        {"lsa": False, "dilation": 2},
        {"lsa": False, "shared": "conv_small", "stride": 2},
        {"lsa": False, "shared": "conv_large", "stride": 2},
    ],
)
def test_dcdc_is_the_formula_of_the_paper(options):
    sizes = {"kernel_size": 3, "shared_kernel_size": 3, "group_channels": 4, "reduction": 2, "width_factor": 1.5}
    layer = formulas.drawn(functools.partial(DCDC, 8, **sizes, **options))
    x, stride, p = formulas.image(2, 5, 7, 8), options.get("stride", 1), formulas.parameters(layer)
    dilation = options.get("dilation", 1)
    expected: Any = 0.0
    if options.get("lsa", True):
        expected = expected + local(x, p["local"], stride, dilation)
    if options.get("shared") == "conv_large":
        expected = expected + formulas.conv(x, p["shared"], stride=stride, dilation=dilation)
    elif options.get("shared", "gsi") is not None:
        expected = expected + shared(x, p["shared"], stride, dilation)
    formulas.check(layer, expected, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"shared": "gsj"}, "`shared` must be 'gsi'"), ({"lsa": False, "shared": None}, "there would be no branch")],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DCDC(16, rngs=nnx.Rngs(0), **options)
