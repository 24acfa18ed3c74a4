"""Involution against its formula."""

import functools

import pytest
from flax import nnx

from ddf_jax.layers import Involution
from tests.ddf_jax.layers import formulas


@pytest.mark.parametrize("options", [{"kernel_size": 5}, {"kernel_size": 3, "stride": 2, "dilation": 2}])
def test_involution_is_the_formula_of_the_paper(options):
    layer = formulas.drawn(functools.partial(Involution, 8, group_channels=4, reduction=2, **options))
    x, stride = formulas.image(2, 5, 7, 8), options.get("stride", 1)
    filters = formulas.involution_filters(x, formulas.parameters(layer)["spatial_branch"], 2, stride)
    formulas.check(layer, formulas.spatial_filter(x, filters, stride=stride, dilation=options.get("dilation", 1)), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"group_channels": 16}, "`group_channels` must divide"), ({"reduction": 9}, "must leave at least one channel")],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Involution(8, **{"group_channels": 4, **options}, rngs=nnx.Rngs(0))
