"""Images whose rows are split over devices: the values of whole images, and no communication but halos and sums."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pallas_kernels import dynamic_filter, halo_exchange, local_correlation, neighborhood_attention
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels import suite
from tests.pallas_kernels.ops.test_triton import COLUMNS, QUICKLY
from tests.split_rows import Collectives, check_as_whole, collectives, mesh_of

FLOAT64 = ("float64", "float64", "float64")
PERMUTE, REDUCE = "collective-permute", "all-reduce"
RNG = np.random.default_rng(0)


def case(name: str, x: Any, kernel_size: Any = 3, **options: Any) -> Any:
    rest = {option: options.pop(option) for option in ("groups", "channel") if option in options}
    return ArgSpec(name, x, FilterSpec(kernel_size, **options), **rest)


# With the numbers of rows above and below that a device needs.
CASES = (
    (case("mul", (2, 16, 5, 4), groups=2), (1, 1)),
    (case("stride", (2, 32, 5, 4), stride=2, normalize="filter_norm"), (1, 0)),
    (case("upsample", (1, 8, 3, 4), scale=2, groups=2), (1, 1)),
    (case("halo_of_several_devices", (1, 8, 3, 2), (7, 1), combine="add"), (3, 3)),
    (case("dilation_and_stride", (1, 32, 5, 2), 5, stride=(4, 1), dilation=3, channel=False), (6, 3)),
    (case("even", (1, 16, 4, 2), (4, 2), padding=((1, 2), (1, 0)), normalize="softmax"), (1, 2)),
    (case("causal", (1, 16, 4, 2), (3, 1), padding=((2, 0), (0, 0))), (2, 0)),
    (case("no_spatial_filter", (2, 16, 5, 4), 5, groups=None), (2, 2)),
    (case("upsample_no_spatial_filter", (2, 8, 3, 4), scale=3, groups=None), (1, 1)),
    (case("patches", (1, 16, 4, 2), 2, stride=2, padding=((0, 0), (0, 0))), (0, 0)),
)
FAST = {(4, "mul"), (8, "halo_of_several_devices")}


def check(arg: ArgSpec, mesh: Mesh, x: P, spatial: P) -> tuple[Collectives, Collectives]:
    given = arg.arrays(dtype=FLOAT64)
    placed = [(a, spec) for a, spec in zip(given, (x, spatial, P(x[0])), strict=True) if a is not None]

    def function(*arrays: Any) -> Any:
        rest = iter(arrays)
        operands: Any = [None if a is None else next(rest) for a in given]
        return arg.call(*operands, implementation="xla")

    return check_as_whole(function, mesh, *zip(*placed, strict=True))


@pytest.mark.parametrize(
    ("devices", "arg", "halo"),
    [
        pytest.param(n, *case, id=f"{case[0].name}-{n}", marks=[] if (n, case[0].name) in FAST else pytest.mark.slow)
        for n, case in itertools.product((2, 4, 8), CASES)
    ],
)
def test_split_rows_exchange_halos_and_sum_the_cotangent_of_the_channel_filter(devices, arg, halo):
    rows = P(None, "height")
    forward, both = check(arg, mesh_of(devices), rows, rows)
    _, height, width, channels = arg.x
    # As many messages as devices that the halo reaches, of no more rows than it has.
    hops = [-(-side * devices // height) for side in halo]
    assert forward.counts == ({PERMUTE: sum(hops)} if any(hops) else {})
    sizes = [shape[-3] for shape in forward.shapes_of(PERMUTE)]
    assert sum(sizes) == sum(halo)
    assert all(shape[-2:] == (width, channels) for shape in forward.shapes_of(PERMUTE))
    sums = {REDUCE: 1} if arg.channel else {}
    assert both.counts == ({PERMUTE: 3 * sum(hops)} if any(hops) else {}) | sums  # x, x again, and the cotangent of x


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_samples_rows_and_channels_are_split_together(groups):
    mesh = jax.make_mesh((2, 2, 2), ("data", "height", "model"), axis_types=(AxisType.Auto,) * 3)
    arg = case("all", (2, 8, 3, 4), groups=groups)
    spatial = P("data", "height", None, None, "model" if groups > 1 else None)
    forward, both = check(arg, mesh, P("data", "height", None, "model"), spatial)
    assert forward.counts == {PERMUTE: 2}
    assert both.counts == {PERMUTE: 6, REDUCE: 1 if groups > 1 else 2}


@pytest.mark.slow
def test_explicit_axes_split_rows_too():
    rows = P("data", "height")
    forward, both = check(case("explicit", (2, 8, 3, 4), stride=2), mesh_of(4, 2, explicit=True), rows, rows)
    assert forward.counts == {PERMUTE: 1}
    assert both.counts == {PERMUTE: 2, REDUCE: 1}  # the halo of x is exchanged once


@pytest.mark.slow
def test_vmap_and_the_second_derivative_exchange_halos():
    """The images of a loop, and a gradient's own derivative."""
    x, spatial = RNG.normal(size=(3, 2, 8, 3, 4)), RNG.normal(size=(2, 8, 3, 1, 9))

    def function(x: Any, spatial: Any) -> Any:
        def energy(x: Any) -> Any:
            return jnp.sin(jax.vmap(lambda x: dynamic_filter(x, spatial, None))(x)).sum()

        return jax.jvp(jax.grad(energy), (x,), (jnp.cos(x),))[1]

    mesh = mesh_of(4, 2)
    forward, _ = check_as_whole(function, mesh, (x, spatial), (P(None, "data", "height"), P("data", "height")))
    assert {*forward.counts} == {PERMUTE}


@pytest.mark.slow
def test_correlation_and_attention_exchange_halos():
    query, key, value = RNG.normal(size=(3, 2, 8, 5, 4))

    def function(query: Any, key: Any, value: Any) -> Any:
        found = local_correlation(query, key, kernel_size=3).sum((-1, -2))
        return found[..., None] + neighborhood_attention(query, key, value, kernel_size=3, num_heads=2, border="mask")

    rows = P("data", "height")
    forward, both = check_as_whole(function, mesh_of(4, 2), (query, key, value), (rows,) * 3)
    assert {*forward.counts} == {*both.counts} == {PERMUTE}


@pytest.mark.slow
def test_the_kernels_split_rows_as_the_portable_implementation_does():
    arg = case("kernels", (2, 4, 3, 8), (3, 1))
    rows = NamedSharding(mesh_of(2), P(None, "height"))

    def place(arrays: Any) -> Any:
        x, spatial, channel, dy = arrays
        return (
            *jax.device_put((x, spatial), rows),
            jax.device_put(channel, NamedSharding(rows.mesh, P())),
            jax.device_put(dy, rows),
        )

    program = suite.check(COLUMNS, arg, place=place, compiler_options=QUICKLY)
    assert {*collectives(program).counts} == {PERMUTE, REDUCE}


@pytest.mark.slow
@pytest.mark.parametrize("arg", [case("rows", (1, 6, 3, 2)), case("valid", (1, 8, 3, 2), padding=((0, 0), (1, 1)))])
def test_rows_that_devices_cannot_share_evenly_are_gathered(arg):
    with jax.enable_x64(True):
        x, *filters = arg.arrays(dtype=FLOAT64)
        filtered = jax.jit(lambda x: arg.call(x, *filters))
        rows = NamedSharding(mesh_of(4), P(None, "height" if x.shape[1] % 4 == 0 else None))
        found = filtered(jax.device_put(x, rows))
        np.testing.assert_allclose(found, filtered(x), rtol=1e-12)


@pytest.mark.parametrize("fill", [0.0, -np.inf])
def test_halo_exchange_reaches_devices_farther_away(fill):
    """Halos of 5 and 3 rows where four devices have two rows each."""
    rows = P(None, "height")

    def exchange(x: Any) -> Any:
        return halo_exchange(x, "height", 5, 3, fill=fill)

    exchanged = jax.shard_map(exchange, mesh=mesh_of(4), in_specs=rows, out_specs=rows)
    found = jax.jit(exchanged)(jnp.arange(8.0).reshape(1, 8, 1, 1)).reshape(4, 10)
    image = np.pad(np.arange(8.0), (5, 3), constant_values=fill)
    np.testing.assert_array_equal(found, [image[2 * n : 2 * n + 10] for n in range(4)])


def test_halo_exchange_repeats_the_border_of_the_image():
    rows = P(None, "height")
    exchanged = jax.shard_map(
        lambda x: halo_exchange(x, "height", 2, 1, fill=None), mesh=mesh_of(2), in_specs=rows, out_specs=rows
    )
    found = jax.jit(exchanged)(jnp.arange(4.0).reshape(1, 4, 1, 1)).reshape(2, 5)
    np.testing.assert_array_equal(found, [[0, 0, 0, 1, 2], [0, 1, 2, 3, 3]])
    with pytest.raises(ValueError, match="at most a device's rows, 1, got above=2"):
        jax.eval_shape(exchanged, jnp.ones((1, 2, 1, 1)))
