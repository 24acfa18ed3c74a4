import itertools
from typing import Any

import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from tests.split_rows import Collectives, check_as_whole, mesh_of


def case(name: str, x: Any, kernel_size: Any = 3, **options: Any) -> ArgSpec:
    rest = {option: options.pop(option) for option in ("groups", "channel") if option in options}
    return ArgSpec(name, x, FilterSpec(kernel_size, **options), **rest)

CASES = (
    case("mul", (2, 16, 5, 4), groups=2),
    case("stride", (2, 32, 5, 4), stride=2, normalize="softmax"),
    case("upsample", (1, 8, 3, 4), scale=2, groups=2),
    case("halo of several devices", (1, 8, 3, 2), 7, combine="add"),
    case("dilation and stride", (1, 32, 5, 2), 5, stride=(4, 1), dilation=3, channel=False),
    case("even", (1, 16, 4, 2), (4, 2), padding=((1, 2), (1, 0))),
    case("causal", (1, 16, 4, 2), (3, 1), padding=((2, 0), (0, 0))),
    case("no spatial filter", (2, 16, 5, 4), 5, groups=None),
    case("padding of a stride", (1, 16, 4, 2), 2, stride=2, padding=((0, 0), (0, 0))),
    case("one tap", (1, 8, 4, 2), 1),
    case("filter norm", (2, 32, 5, 4), stride=2, normalize="filter_norm"),
)

def check(arg: ArgSpec, mesh) -> tuple[Collectives, Collectives]:
    given = [a for a in arg.arrays(dtype=("float64",)*3)]
    split = P("data" if mesh.shape["data"] > 1 else None, "height")
    specs = [s for a, s in zip(given, (split,split,P(split[0]))) if a is not None]
    def function(*arrays):
        it = iter(arrays)
        return arg.call(*(None if a is None else next(it) for a in given), implementation="xla")
    return check_as_whole(function, mesh, [a for a in given if a is not None], specs)

@pytest.mark.parametrize(("height", "arg"), [*itertools.product((2,4,8), CASES)], ids=str)
def test_grid(arg,height):
    forward, both = check(arg, mesh_of(height))
    print(arg.name, height, forward, both)
