"""The kernel of attention in a neighbourhood, against the float64 loop and against the composition that it replaces."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import pallas_kernels
from pallas_kernels import aot, neighborhood_attention
from pallas_kernels.ops import fused_attention, xla
from pallas_kernels.ops.neighborhood import AttentionSpec, Border
from pallas_kernels.ops.triton import attention
from tests.aot import needs_triton
from tests.pallas_kernels.ops.test_correlation import attention_loop, normal
from tests.pallas_kernels.ops.test_partition import collectives
from tests.pallas_kernels.ops.test_triton import QUICKLY


@dataclasses.dataclass(frozen=True)
class Case:
    """A call; without `bias` there is none."""

    shape: tuple[int, int, int, int]
    kernel_size: tuple[int, int]
    border: Border
    num_heads: int = 2
    dilation: tuple[int, int] = (1, 1)
    bias: bool = True
    dtype: str = "float32"
    nan_in_last_head: bool = False  # of k: no other head has it

    @property
    def spec(self) -> AttentionSpec:
        scale = (self.shape[-1] // self.num_heads) ** -0.5
        return AttentionSpec(self.kernel_size, self.dilation, scale, self.border)

    def arrays(self) -> list[np.ndarray]:
        """v, q, k and the bias."""
        arrays = [normal(*self.shape, seed=seed) for seed in range(3)]
        if self.bias:
            arrays.append(normal(self.num_heads, self.spec.bias_taps, seed=3))
        if self.nan_in_last_head:
            arrays[2][..., self.shape[-1] // self.num_heads * (self.num_heads - 1) :] = np.nan
        return [array.astype(self.dtype) for array in arrays]


# A block of all taps, of a row and of one tap; heads of 3 channels; odd sizes; windows as large as the image.
FAST = (
    Case((1, 7, 4, 6), (3, 3), "shift", dilation=(2, 1)),
    Case((1, 3, 5, 6), (1, 33), "mask", dtype="bfloat16", nan_in_last_head=True),
    Case((1, 3, 5, 4), (5, 3), "zero", num_heads=1, dtype="float16"),
)
GRID = [
    Case(shape, size, border, heads, dilation, bias, dtype)
    for border in ("zero", "mask", "shift")
    for shape, size, heads, dilation, bias, dtype in (
        ((2, 7, 6, 6), (3, 5), 2, (2, 1), True, "float32"),
        ((1, 9, 8, 4), (7, 7), 4, (1, 1), False, "bfloat16"),
        ((3, 4, 7, 5), (1, 3), 1, (1, 2), True, "float16"),
        ((1, 5, 35, 3), (3, 33), 3, (1, 1), True, "float32"),
        ((2, 1, 1, 8), (1, 1), 2, (1, 1), True, "float32"),
        ((1, 11, 3, 130), (5, 3), 1, (2, 1), False, "float32"),
    )
]


@pytest.mark.parametrize(
    "case", [*FAST, *(pytest.param(case, marks=pytest.mark.slow) for case in GRID)], ids=lambda case: str(case)[5:-1]
)
def test_the_kernel_is_the_loop_and_nothing_outside_is_read(case: Case, monkeypatch):
    def pixel_rows(*arrays):
        return tuple(
            None if a is None else jnp.pad(a, ((0, 1), (0, 0)), constant_values=jnp.nan) for a in rows(*arrays)
        )

    rows = attention.pixel_rows
    monkeypatch.setattr(attention, "pixel_rows", pixel_rows)
    v, q, k, *bias = arrays = case.arrays()
    kernel = functools.partial(attention.attend, spec=case.spec, num_heads=case.num_heads, interpret=True)
    y = jax.jit(kernel).lower(v, q, k, *(b[None] for b in bias)).compile(QUICKLY)(v, q, k, *(b[None] for b in bias))
    assert y.dtype == v.dtype
    v, q, k, *bias = (array.astype(np.float64) for array in arrays)
    [table] = bias or [np.zeros((case.num_heads, case.spec.bias_taps))]
    options: Any = {"heads": case.num_heads, "dilation": case.dilation, "border": case.border}
    expected = attention_loop(q, k, v, table, size=case.kernel_size, **options)
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2 * float(jnp.finfo(y.dtype).eps), atol=1e-6)


def test_keys_of_the_least_logit_share_a_window_of_their_own():
    v = q = k = jnp.ones((1, 1, 2, 1))
    bias = jnp.full((1, 1, 1), jnp.finfo(jnp.float32).min)
    spec = AttentionSpec((1, 1), (1, 1), 1.0, "mask")
    assert jnp.array_equal(attention.attend(v, q, k, bias, spec=spec, num_heads=1, interpret=True), v)


@dataclasses.dataclass(frozen=True)
class Fused:
    """The kernel, interpreted, with the portable implementation."""

    def attend(self, *arrays, **options):
        return attention.attend(*arrays, interpret=True, **options)

    def forward(self, *arguments):
        return xla.forward(*arguments)

    def backward(self, *arguments):
        return xla.backward(*arguments)


def attend(preference: Any, num_heads: int = 2, border: Border = "mask"):
    """Of v, q, k and the bias."""
    options: Any = {"spec": AttentionSpec((1, 3), (1, 1), 0.5, border), "num_heads": num_heads}
    return functools.partial(fused_attention.attend, preference=preference, **options)


@pytest.mark.parametrize("order", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_values_and_derivatives_under_vmap_are_those_of_the_composition(order):
    def everything(preference, v, q, k, bias):
        function = attend(preference)

        def loss(*arrays):
            return jnp.sum(function(*arrays) ** 2)

        def derivatives(*arrays):
            function, (v, q, k, bias) = jax.value_and_grad(loss, argnums=(0, 1, 2, 3)), arrays
            return function(*arrays) if order == 1 else jax.jvp(function, arrays, (k, v, q, bias))

        stacked = jnp.stack([v, q]), k, jnp.stack([q, v], 1), jnp.stack([bias, -bias])
        return jax.vmap(derivatives, in_axes=(0, None, 1, 0))(*stacked)

    arrays = [normal(1, 2, 3, 4, seed=seed) for seed in range(3)] + [normal(2, 3, seed=3)]
    arrays = [array.astype(np.float32) for array in arrays]
    found, expected = (
        jax.jit(functools.partial(everything, preference)).lower(*arrays).compile(QUICKLY)(*arrays)
        for preference in ((Fused(),), ("xla",))
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-5), found, expected)


@pytest.mark.parametrize(
    ("mode", "num_heads", "has_bias"),
    [
        pytest.param(AxisType.Auto, 8, False, marks=pytest.mark.slow),
        (AxisType.Explicit, 2, True),
        pytest.param(AxisType.Auto, 8, True, marks=pytest.mark.slow),
        pytest.param(AxisType.Auto, 2, True, marks=pytest.mark.slow),
        pytest.param(AxisType.Explicit, 8, True, marks=pytest.mark.slow),
    ],
)
def test_the_kernel_splits_by_samples_and_heads_and_sums_the_logits_of_a_head_on_several_devices(
    mode, num_heads, has_bias
):
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(mode, mode))
    arrays = [normal(2, 2, 3, 16, seed=seed).astype(np.float32) for seed in range(3)]
    bias = normal(num_heads, 3, seed=3).astype(np.float32) if has_bias else None
    expected = attend(("xla",), num_heads)(*arrays, bias)
    with jax.set_mesh(mesh):
        placed = jax.device_put(arrays, NamedSharding(mesh, P("data", None, None, "model")))
        program = jax.jit(attend((Fused(),), num_heads)).lower(*placed, bias).compile(QUICKLY)
        assert collectives(program) == ({} if num_heads == 8 else {"all-reduce": 1})
        y = program(*placed, bias)
    assert y.sharding.is_equivalent_to(placed[0].sharding, 4)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


IMAGE = jax.ShapeDtypeStruct((2, 5, 4, 16), jnp.float32)
shifted = functools.partial(neighborhood_attention, kernel_size=(1, 3), num_heads=2, border="shift")


def kernels(function, *arrays: Any) -> list[str]:
    return [kernel.name.removeprefix("dynamic_filter_") for kernel in aot.triton_kernels(function, *arrays)]


def test_on_a_gpu_the_forward_pass_is_one_kernel_and_derivatives_compute_what_they_need_of_the_logits_once():
    def attended(v, q, k, implementation: Any = "triton"):
        return shifted(q, k, v, implementation=implementation)

    arrays = IMAGE, IMAGE, IMAGE
    either = functools.partial(attended, implementation=("triton", "xla"))
    assert kernels(either, *arrays) == ["neighborhood_attention"]
    assert kernels(functools.partial(attended, implementation="xla"), *arrays) == []
    gradient = jax.grad(lambda *a: jnp.sum(attended(*a) ** 2))  # of v alone
    assert kernels(gradient, *arrays) == ["neighborhood_attention", "dspatial", "statistics", "dx"]
    tangent = kernels(lambda v, *others: jax.jvp(lambda v: attended(v, *others), (v,), (v,)), *arrays)
    assert tangent == ["neighborhood_attention", "dspatial", "statistics", "fwd"]
    kept = jax.eval_shape(lambda *a: jax.vjp(attended, *a)[1], *arrays)
    assert {leaf.shape for leaf in jax.tree.leaves(kept)} == {IMAGE.shape}  # no logits


def test_float64_and_other_devices_compose():
    with jax.enable_x64(True):
        assert not kernels(shifted, *(jax.ShapeDtypeStruct(IMAGE.shape, jnp.float64),) * 3)
    with pytest.raises(NotImplementedError, match="'triton' runs on NVIDIA GPUs from Ampere on, here is: cpu"):
        shifted(*(jnp.zeros(IMAGE.shape),) * 3, implementation="triton")
    checks = pallas_kernels.DISABLED_EXPORT_CHECKS
    program = export.export(jax.jit(shifted), platforms=("cpu", "cuda"), disabled_checks=checks)(IMAGE, IMAGE, IMAGE)
    assert program.mlir_module().count(aot.TRITON_CALL) == 1


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "device"), [("bfloat16", "h200"), ("float32", "h200"), ("float16", "a100")])
@pytest.mark.parametrize(("kernel_size", "head"), [(3, 32), (5, 24), (7, 32), (15, 128)])
@pytest.mark.parametrize("border", ["zero", "mask", "shift"])
def test_no_kernel_spills_what_it_keeps_per_key_and_its_loads_are_128_bits_wide(
    border, kernel_size, head, dtype, device
):
    image = jax.ShapeDtypeStruct((8, 28, 28, 4 * head), dtype)
    taps = AttentionSpec((kernel_size, kernel_size), (1, 1), 1.0, border).bias_taps
    bias = jax.ShapeDtypeStruct((4, taps), jnp.float32)
    options: Any = {"kernel_size": kernel_size, "num_heads": 4, "border": border}
    [kernel] = aot.triton_kernels(
        lambda q, k, v, bias: neighborhood_attention(q, k, v, bias=bias, **options), image, image, image, bias
    )
    used = aot.resources(kernel, aot.DEVICES[device])
    assert used.spill_bytes <= 8  # the compiler may move a constant out of a loop, so that one more program is resident
    assert used.vector_load_share > 0.8  # the bias is not
