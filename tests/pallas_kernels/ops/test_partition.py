"""The operator on eight devices: the values of one device, and no communication but one sum."""

import collections
import contextlib
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pallas_kernels import aot, dynamic_filter
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels import suite
from tests.pallas_kernels.ops.test_triton import COLUMNS, QUICKLY

COLLECTIVE = re.compile(r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
X = (8, 4, 5, 16)
FEW, ONE_TAP = (2, 2, 3, 8), FilterSpec(1)  # for interpreted kernels: one tap compiles soonest, and splits as any

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


def check(mode, split, arg, dtypes=suite.FLOAT32, operator=None, options=None):
    """Runs the suite on sharded arrays; returns the collectives of the forward pass and of forward and backward.

    Args:
      operator: default: the portable one.
      options: for the compiler.
    """
    operator = operator or suite.by_name("xla")
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

        arrays: Any = place((*arg.arrays(dtype=dtypes), None))[:-1]
        forward = jax.jit(operator(arg)).lower(*arrays).compile(options)
        assert forward(*arrays).sharding.is_equivalent_to(arrays[0].sharding, 4)
        return collectives(forward), collectives(suite.check(operator, arg, dtypes, place, options))


@pytest.mark.parametrize(
    ("mode", "split"),
    [
        ("auto", "samples"),
        ("explicit", "both"),
        pytest.param("no context", "channels", marks=pytest.mark.slow),
        *(
            pytest.param(mode, split, marks=pytest.mark.slow)
            for mode, split in itertools.product(("auto", "explicit"), SPLITS)
            if (mode, split) not in (("auto", "samples"), ("explicit", "both"))
        ),
    ],
)
def test_only_the_cotangent_of_shared_filters_is_reduced(mode, split):
    forward, both = check(mode, split, ArgSpec("filter", X))
    assert not forward
    assert both == ({} if split == "samples" else {"all-reduce": 1})


@pytest.mark.parametrize("shape", [(8, 1), (1, 8)], ids=str)
@pytest.mark.parametrize("x_spec", [P("data", None, None, "model"), P(None, "data", None, None)], ids=str)
def test_a_cotangent_has_its_inputs_type_also_along_axes_of_one_device(shape, x_spec):
    arg = ArgSpec("typed", (8, 8, 3, 8))
    mesh = jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    specs = (x_spec, P("data", None, None, None, None, None), P(None, None, None, None))
    with jax.set_mesh(mesh):
        inputs = [
            jax.ShapeDtypeStruct(struct.shape, struct.dtype, sharding=NamedSharding(mesh, spec))
            for struct, spec in zip(arg.structs(), specs, strict=True)
        ]
        cotangents: Any = jax.eval_shape(jax.grad(lambda *a: jnp.sum(arg.call(*a)), argnums=(0, 1, 2)), *inputs)
    assert [cotangent.sharding.spec for cotangent in cotangents] == list(specs)


@pytest.mark.parametrize(
    ("mode", "split"), [("auto", "channels"), pytest.param("explicit", "both", marks=pytest.mark.slow)]
)
def test_the_kernels_split_as_the_portable_implementation_does(mode, split):
    forward, both = check(mode, split, ArgSpec("kernels", FEW, ONE_TAP), operator=COLUMNS, options=QUICKLY)
    assert not forward
    assert both == {"all-reduce": 1}


@pytest.mark.parametrize(
    ("mode", "groups"),
    [
        ("auto", 16),  # of one channel each
        ("explicit", 2),
        *(pytest.param(*rest, marks=pytest.mark.slow) for rest in (("auto", 4), ("auto", 2), ("explicit", 8))),
    ],
)
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


@pytest.mark.parametrize("mode", ["auto", pytest.param("explicit", marks=pytest.mark.slow)])
def test_a_bfloat16_cotangent_is_rounded_once_after_the_reduction(mode):
    """The suite allows half a unit in the last place: a sum of eight rounded parts has a larger error."""
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


@pytest.mark.parametrize(
    ("groups", "kernels"), [(1, False), (8, False), pytest.param(1, True, marks=pytest.mark.slow)], ids=str
)
def test_shard_map_of_the_operator_sums_the_cotangent_of_a_shared_filter(groups, kernels):
    arg = ArgSpec("shard_map", FEW if kernels else X, ONE_TAP if kernels else FilterSpec((1, 3)), groups=groups)
    of_a_device = COLUMNS if kernels else suite.by_name("xla")
    mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Auto,))
    like_x = P(None, None, None, "model")
    spatial = P(None, None, None, None, "model" if groups == 8 else None)

    def operator(arg):
        # Pallas's interpreter, not the kernel, fails the check of varying axes.
        specs: Any = {"in_specs": (like_x, spatial, like_x), "out_specs": like_x, "check_vma": not kernels}
        return jax.shard_map(of_a_device(arg), mesh=mesh, **specs)

    suite.check(operator, arg, compiler_options=QUICKLY if kernels else None)


@pytest.mark.parametrize(("mode", "groups"), [pytest.param("auto", 4, marks=pytest.mark.slow), ("explicit", 1)])
def test_shard_map_over_some_axes_of_a_mesh(mode, groups):
    arg = ArgSpec("partly_manual", X, groups=groups)
    with eight_devices(mode) as mesh:
        like_x = NamedSharding(mesh, P("data", None, None, "model"))

        def place(arrays):
            return jax.device_put(arrays, (like_x, NamedSharding(mesh, P("data")), like_x, like_x))

        def operator(arg):
            of_a_device = suite.by_name("xla")(arg)
            return jax.shard_map(of_a_device, in_specs=(P("data"),) * 3, out_specs=P("data"), axis_names={"data"})

        suite.check(operator, arg, place=place)


def test_arguments_on_no_mesh_are_right_under_one():
    with eight_devices("auto"):
        suite.check(suite.by_name("xla"), ArgSpec("numpy", X, groups=2), place=lambda arrays: arrays)
        filters = jnp.full((2, 4, 4, 1, 9), 1 / 9)
        means = jax.jit(lambda: dynamic_filter(jnp.ones((2, 4, 4, 3)), filters, None))()
    assert means[0, 1, 1, 0] == pytest.approx(1)


def test_shard_map_checks_the_varying_axes_of_the_kernels_too():
    arg = ArgSpec("shard_map", X)
    like_x = P(None, None, None, "model")
    mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Auto,))
    operator = jax.shard_map(arg.call, mesh=mesh, in_specs=(like_x, P(), like_x), out_specs=like_x)
    traced = jax.jit(suite.pull_back(operator)).trace(*arg.structs(), arg.structs()[0])
    assert str(traced.jaxpr).count("psum") == 1  # of the filter that the devices share
    assert traced.lower(lowering_platforms=("cuda",)).as_text().count(aot.TRITON_CALL) == 4


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
        assert not collectives(program)
        assert program(*placed).sharding.is_equivalent_to(placed[0].sharding, 5)
        np.testing.assert_allclose(jax.device_get(program(*placed)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("in_axes", "x_spec"),
    [
        pytest.param((0, None, None), P("data", "model"), marks=pytest.mark.slow),
        pytest.param((None, 0, None), P("model"), marks=pytest.mark.slow),
        pytest.param((None, 0, None), P(), marks=pytest.mark.slow),
        pytest.param((None, None, 0), P(None, None, None, "model"), marks=pytest.mark.slow),
        ((0, 0, 0), P("data", None, None, None, "model")),
    ],
    ids=str,
)
def test_vmap_over_explicit_axes_wherever_the_mapped_one_is_split(in_axes, x_spec):
    arg = ArgSpec("mapped", (4, 4, 5, 8), groups=4)
    arrays: Any = [
        jnp.stack([arg.arrays(seed)[at] for seed in range(4)]) if axis == 0 else arg.arrays()[at]
        for at, axis in enumerate(in_axes)
    ]

    def run(*arrays):
        function = jax.vmap(arg.call, in_axes=in_axes)
        return suite.pull_back(function)(*arrays, function(*arrays))

    expected = jax.device_get(jax.jit(run)(*arrays))
    with eight_devices("explicit") as mesh:
        specs = [x_spec, *(P("data") if axis == 0 else P() for axis in in_axes[1:])]
        placed = jax.device_put(arrays, [NamedSharding(mesh, spec) for spec in specs])
        actual = jax.device_get(jax.jit(run)(*placed))
    for found, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


def test_an_exported_program_keeps_its_explicit_sharding():
    """Over Auto axes JAX cannot serialize the callbacks of `custom_partitioning` in a program for several devices."""
    arg = ArgSpec("exported", (8, 4, 5, 4))
    with eight_devices("explicit") as mesh:
        arrays = jax.device_put(arg.arrays(), NamedSharding(mesh, P(("data", "model"))))
        program = export.deserialize(export.export(jax.jit(arg.call))(*arrays).serialize())
        y = jax.jit(program.call)(*arrays)
        assert y.sharding.is_equivalent_to(arrays[0].sharding, 4)
    np.testing.assert_allclose(y, arg.call(*arg.arrays()), rtol=1e-5, atol=1e-5)
