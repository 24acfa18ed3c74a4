"""Bi-volution against its formula: SAKG and the static branch, together and each alone."""

import functools

import numpy as np
import pytest
from flax import nnx

from ddf_jax.layers import DDF, Bivolution, Involution
from tests.ddf_jax.layers import formulas

INVOLUTION = functools.partial(Involution, kernel_size=3, group_channels=4, reduction=2)


def augmented(x: np.ndarray, p: dict, dilation: int = 1) -> np.ndarray:
    y = formulas.conv(x, p["context"], dilation=dilation, groups=x.shape[-1])
    y = y @ p["pointwise"]["kernel"] if "pointwise" in p else y
    average = x.mean((1, 2))
    hidden = formulas.linear(average, p["squeeze"]) if "squeeze" in p else average
    return y * formulas.sigmoid(formulas.linear(hidden, p["excite"]))[:, None, None]


STATIC = {"static_kernel_size": 3, "static_groups": 4, "dilation": 2}
CONTEXT = {"static_kernel_size": None, "context_dilation": 2, "context_reduction": 2, "context_pointwise": True}


@pytest.mark.parametrize(
    ("options", "stride"),
    [
        (STATIC, 2),
        (CONTEXT, 1),
        *(pytest.param(options, stride, marks=pytest.mark.slow) for options, stride in ((STATIC, 1), (CONTEXT, 2))),
    ],
)
def test_bivolution_on_involution_is_the_formula_of_the_paper(options, stride):
    make = functools.partial(Bivolution, 8, dynamic=INVOLUTION, stride=stride, **options)
    layer, x = formulas.drawn(make), formulas.image(2, 5, 7, 8)
    p = formulas.parameters(layer)
    generator = p["dynamic"]["spatial_branch"]["layers"]
    seen = augmented(x, generator[0], options.get("context_dilation", 1))
    filters, dilation = formulas.involution_filters(seen, generator[1], 2, stride), options.get("dilation", 1)
    expected = formulas.spatial_filter(x, filters, stride=stride, dilation=dilation)
    if "static" in p:
        expected += formulas.conv(x, p["static"], stride=stride, dilation=dilation, groups=4)
    formulas.check(layer, expected, x)


def test_without_either_part_it_is_the_dynamic_layer():
    make = functools.partial(Bivolution, 8, dynamic=INVOLUTION, static_kernel_size=None, context_kernel_size=None)
    layer, x = formulas.drawn(make), formulas.image(1, 4, 4, 8)
    np.testing.assert_array_equal(formulas.run(layer, x), formulas.run(layer.dynamic, x))


def test_on_ddf_the_context_changes_the_spatial_filters_alone():
    layer = formulas.drawn(functools.partial(Bivolution, 8, dynamic=functools.partial(DDF, squeeze_ratio=0.5)))
    x = formulas.image(2, 5, 7, 8)
    augmentation, branch = layer.dynamic.spatial_branch.layers
    p = formulas.parameters(augmentation)
    np.testing.assert_allclose(formulas.run(augmentation, x), augmented(x, p), atol=1e-5)
    static = formulas.conv(x, formulas.parameters(layer.static))
    without = nnx.merge(*nnx.split(layer.dynamic))
    without.spatial_branch = branch

    class Shifted(nnx.Module):
        """The DDF with spatial filters generated from another map than the filtered one."""

        def __init__(self):
            self.ddf, self.augmentation = without, augmentation

        def __call__(self, x):
            from pallas_kernels import dynamic_filter

            spatial = self.ddf.spatial_branch(self.augmentation(x))
            return dynamic_filter(x, spatial, self.ddf.channel_branch(x), **dict(self.ddf.normalization))

    formulas.check(layer, formulas.run(Shifted(), x) + static, x)
