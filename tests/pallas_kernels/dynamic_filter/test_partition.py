"""The operator on eight devices: the values of one device, and no communication but one sum."""

import collections
import contextlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pallas_kernels.dynamic_filter.arg_specs import ArgSpec
from pallas_kernels.dynamic_filter.spec import FilterSpec
from tests.pallas_kernels import suite

COLLECTIVE = re.compile(r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
X = (8, 4, 5, 16)

# Mesh axes of the samples and of the channels, on a mesh of 2 "data" × 4 "model" devices.
SPLITS = {
    "samples": (("data", "model"), None),
    "channels": (None, ("data", "model")),
    "both": ("data", "model"),
}


@contextlib.contextmanager
def eight_devices(mode):
    """A mesh, set as the context's unless `mode` is "no context"."""
    axis_type = AxisType.Explicit if mode == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(axis_type, axis_type))
    with contextlib.nullcontext() if mode == "no context" else jax.set_mesh(mesh):
        yield mesh


def collectives(compiled):
    return collections.Counter(COLLECTIVE.findall(compiled.as_text()))


def check(mode, split, arg, dtypes=suite.FLOAT32):
    """Runs the suite on sharded arrays; returns the collectives of the forward pass and of forward and backward."""
    with eight_devices(mode) as mesh:
        samples, channels = SPLITS[split]
        shards = {None: 1, "model": 4, ("data", "model"): 8}[channels]
        groups = channels if arg.groups and arg.groups % shards == 0 else None
        like_x = P(samples, None, None, channels)
        specs = (like_x, P(samples, None, None, None, groups, None), like_x, like_x)

        def place(arrays):
            return tuple(
                None if array is None else jax.device_put(array, NamedSharding(mesh, spec))
                for array, spec in zip(arrays, specs, strict=True)
            )

        operator = suite.by_name("xla")
        arrays: Any = place((*arg.arrays(dtype=dtypes), None))[:-1]
        forward = jax.jit(operator(arg)).lower(*arrays).compile()
        assert forward(*arrays).sharding.is_equivalent_to(arrays[0].sharding, 4)
        return collectives(forward), collectives(suite.check(operator, arg, dtypes, place))


@pytest.mark.parametrize("mode", ["auto", "no context", "explicit"])
@pytest.mark.parametrize("split", SPLITS)
def test_only_the_cotangent_of_shared_filters_is_reduced(mode, split):
    forward, both = check(mode, split, ArgSpec("filter", X))
    assert not forward
    assert both == ({} if split == "samples" else {"all-reduce": 1})


@pytest.mark.parametrize("mode", ["auto", "explicit"])
@pytest.mark.parametrize("groups", [2, 4, 8])
def test_devices_that_hold_whole_groups_reduce_nothing(mode, groups):
    forward, both = check(mode, "both", ArgSpec("groups", X, groups=groups))
    assert not forward
    assert both == ({"all-reduce": 1} if groups < 4 else {})


@pytest.mark.parametrize(
    "arg",
    [
        ArgSpec("involution", X, groups=2, channel=False),
        ArgSpec("depthwise", X, FilterSpec(3, stride=2), groups=None),
        ArgSpec("add", X, FilterSpec(3, dilation=2, combine="add")),
        ArgSpec("upsample", X, FilterSpec(3, scale=2), groups=2),
    ],
    ids=lambda arg: arg.name,
)
def test_every_form_of_the_operator_splits(arg):
    forward, both = check("no context", "both", arg)
    assert not forward
    assert both == ({} if arg.groups is None else {"all-reduce": 1})


@pytest.mark.parametrize("mode", ["auto", "explicit"])
def test_a_bfloat16_cotangent_is_rounded_once_after_the_reduction(mode):
    """The suite allows half a unit in the last place: a sum of eight rounded parts is further off."""
    arg = ArgSpec("wide", (2, 6, 7, 64))
    forward, both = check(mode, "channels", arg, ("bfloat16", "bfloat16", "bfloat16"))
    assert not forward
    assert both == {"all-reduce": 1}


def test_groups_that_fit_no_device_are_still_right():
    arg = ArgSpec("three_groups", (2, 4, 5, 12), groups=3)
    with eight_devices("auto") as mesh:

        def place(arrays):
            by_channel = NamedSharding(mesh, P(None, None, None, "model"))
            x, spatial, channel, dy = arrays
            return *jax.device_put((x,), by_channel), spatial, *jax.device_put((channel, dy), by_channel)

        suite.check(suite.by_name("xla"), arg, place=place)


@pytest.mark.parametrize("groups", [1, 8])
def test_shard_map_of_the_operator_sums_the_cotangent_of_a_shared_filter(groups):
    arg = ArgSpec("shard_map", X, groups=groups)
    mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Auto,))
    like_x = P(None, None, None, "model")
    spatial = P(None, None, None, None, "model" if groups == 8 else None)

    def operator(arg):
        return jax.shard_map(suite.by_name("xla")(arg), mesh=mesh, in_specs=(like_x, spatial, like_x), out_specs=like_x)

    suite.check(operator, arg)


@pytest.mark.parametrize("mode", ["auto", "explicit"])
@pytest.mark.parametrize(("mapped", "samples"), [(None, "data"), ("data", None)])
def test_vmap_over_sharded_arrays_is_a_loop_without_communication(mode, mapped, samples):
    arg = ArgSpec("mapped", (2, 4, 5, 8), groups=4)
    images = jnp.stack([arg.arrays(seed)[0] for seed in range(4)])  # [4, B, H, W, C]
    _, spatial, channel = arg.arrays()
    expected = jnp.stack([arg.call(x, spatial, channel) for x in images])
    with eight_devices(mode) as mesh:

        def place(array, *spec):
            return jax.device_put(array, NamedSharding(mesh, P(*spec)))

        placed = (
            place(images, mapped, samples, None, None, "model"),
            place(spatial, samples, None, None, None, "model", None),
            place(channel, samples, None, None, "model"),
        )
        program = jax.jit(jax.vmap(arg.call, in_axes=(0, None, None))).lower(*placed).compile()
        if mode == "explicit" or mapped is None:
            assert not collectives(program)
        np.testing.assert_allclose(jax.device_get(program(*placed)), expected, rtol=1e-5, atol=1e-5)


def test_an_exported_program_keeps_its_explicit_sharding():
    """Over Auto axes JAX cannot serialize what `custom_partitioning` leaves in a program for several devices."""
    arg = ArgSpec("exported", (8, 4, 5, 4))
    with eight_devices("explicit") as mesh:
        arrays = jax.device_put(arg.arrays(), NamedSharding(mesh, P(("data", "model"))))
        program = export.deserialize(export.export(jax.jit(arg.call))(*arrays).serialize())
        y = jax.jit(program.call)(*arrays)
        assert y.sharding.is_equivalent_to(arrays[0].sharding, 4)
    np.testing.assert_allclose(y, arg.call(*arg.arrays()), rtol=1e-5, atol=1e-5)
