import functools

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ddf_jax.functional import (
    average_pool,
    convolution,
    height_split,
    max_pool,
    maximum,
    per_sample_conv,
    pixel_product,
)
from tests.split_rows import check_as_whole, mesh_of

X = (2, 32, 6, 4)
RNG = np.random.default_rng(0)


def conv(kernel_size=3, stride=1, dilation=1, groups=1, padding=None):
    border = dilation * (kernel_size // 2)
    border = padding or (border, border)

    def f(x, w):
        return convolution(
            x,
            w,
            (stride, stride),
            (border, border),
            lhs_dilation=(1, 1),
            rhs_dilation=(dilation, dilation),
            feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return f, (kernel_size, kernel_size, 4 // groups, 8 if groups < 4 else 4)


CASES = {
    "conv": conv(),
    "stride": conv(stride=2),
    "stem": conv(7, 2),
    "dilated": conv(5, dilation=3),
    "groups": conv(groups=2),
    "depthwise": conv(groups=4, stride=2),
    "even": conv(4, padding=(1, 2)),
    "even2": conv(2, 2, padding=(0, 0)),
    "max_pool": (max_pool,),
    "average": (functools.partial(average_pool, size=2),),
    "pointwise": (lambda x, w: pixel_product(x, w, None), (4, 8)),
    "per_sample": (lambda x, w: per_sample_conv(x, w, stride=2), (2, 3, 3, 4, 5)),
    "maximum": (lambda x: jnp.broadcast_to(maximum(x, 1, 2)[:, None, None], x.shape) * x,),
}


@pytest.mark.parametrize("data", (1, 2))
@pytest.mark.parametrize("height", (2, 4))
@pytest.mark.parametrize("name", CASES)
def test_grid(name, height, data):
    f, *shapes = CASES[name]
    mesh = mesh_of(height, data)
    arrays = [RNG.normal(size=s) for s in (X, *shapes)]
    split = P("data" if data > 1 else None, "height")
    print(
        name,
        height,
        data,
        *check_as_whole(
            f,
            mesh,
            arrays,
            [split] + [P(*[split[0]] if len(s) == 5 else []) for s in shapes],
            within=lambda mesh: height_split(NamedSharding(mesh, split)),
        ),
    )
