"""The choice of an implementation for a platform: the best that can run there; a named one runs or raises."""

import logging
import types
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import export

import pallas_kernels
from pallas_kernels import aot, compat, dynamic_filter
from pallas_kernels.ops import choice, device

X, SPATIAL, CHANNEL = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 6, 5, 8), (2, 6, 5, 1, 9), (2, 9, 8)))
DOUBLE = [jax.ShapeDtypeStruct(struct.shape, jnp.float64) for struct in (X, SPATIAL, CHANNEL)]


@pytest.fixture
def logged(caplog):
    choice._log_once.cache_clear()
    caplog.set_level(logging.WARNING, choice.__name__)
    return caplog


def on(platform: str, device_kind: str):
    """A mesh of a compile-only device."""
    device = jax.sharding.AbstractDevice(device_kind=device_kind, num_cores=None, platform=platform)
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device))


def kernels(*platforms: str, arrays: Any = (X, SPATIAL, CHANNEL), **options: Any) -> int:
    """How many kernels there are in the program that is lowered for these platforms."""
    function = jax.jit(lambda *arrays: dynamic_filter(*arrays, **options))
    return function.trace(*arrays).lower(lowering_platforms=platforms).as_text().count(aot.TRITON_CALL)


def test_an_nvidia_gpu_gets_the_kernel_in_both_passes(logged):
    def loss(*inputs):
        return jnp.sum(dynamic_filter(*inputs))

    found = aot.triton_kernels(jax.grad(loss, argnums=(0, 1, 2)), X, SPATIAL, CHANNEL)
    names = {kernel.name.removeprefix("dynamic_filter_") for kernel in found}
    assert names == {"dx", "dspatial", "dchannel"}
    assert [kernel.name for kernel in aot.triton_kernels(dynamic_filter, X, SPATIAL, CHANNEL)] == ["dynamic_filter_fwd"]
    assert not logged.records


def test_only_the_wanted_cotangents_are_computed():
    def loss(spatial, *rest):
        return jnp.sum(dynamic_filter(rest[0], spatial, rest[1]))

    [kernel] = aot.triton_kernels(jax.grad(loss), SPATIAL, X, CHANNEL)
    assert kernel.name == "dynamic_filter_dspatial"


def test_an_exported_program_for_two_platforms_holds_the_kernel_and_runs_here():
    function = jax.jit(jax.grad(lambda *arrays: jnp.sum(dynamic_filter(*arrays))))
    checks = pallas_kernels.DISABLED_EXPORT_CHECKS
    program = export.export(function, platforms=("cpu", "cuda"), disabled_checks=checks)(X, SPATIAL, CHANNEL)
    assert program.mlir_module().count(aot.TRITON_CALL) == 1
    arrays = [jnp.ones(struct.shape) for struct in (X, SPATIAL, CHANNEL)]
    assert (export.deserialize(program.serialize()).call(*arrays) == function(*arrays)).all()


def test_float64_on_a_gpu_runs_as_xla_and_is_logged_once(logged):
    with jax.enable_x64(True):
        assert kernels("cuda", arrays=DOUBLE) == 0
        assert kernels("cuda", arrays=DOUBLE, dilation=2) == 0
    [record] = logged.records
    assert record.getMessage() == ("dynamic_filter runs as XLA on the GPU: implementation='triton' has no float64.")


def test_a_gpu_of_another_maker_runs_xla_and_is_logged(logged):
    with on("gpu", "AMD Instinct MI300X"):
        assert kernels("rocm") == 0
    assert "runs on NVIDIA GPUs from Ampere on, here is: AMD Instinct MI300X." in logged.text


@pytest.mark.parametrize(
    ("kind", "capability", "kernels"),
    [
        ("NVIDIA H200", "9.0", ("triton", "mosaic_gpu")),
        ("A100-SXM4-40GB", "8.0", ("triton",)),  # the name in older drivers
        ("NVIDIA B200", "10.0", ("triton", "mosaic_gpu")),
        ("NVIDIA GeForce RTX 5090", "12.0", ("triton",)),
        ("NVIDIA GeForce RTX 2080 Ti", "7.5", ()),
        ("Tesla V100-SXM2-16GB", "7.0", ()),
        ("AMD Instinct MI300X", "gfx942", ()),
    ],
)
def test_real_gpus_run_the_kernels_from_ampere_and_from_hopper_on(monkeypatch, kind, capability, kernels):
    gpu = types.SimpleNamespace(platform="gpu", device_kind=kind, compute_capability=capability)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda **_: [gpu])
    here = device.device_of_platform("cuda")
    assert (here.runs_triton, here.runs_mosaic) == ("triton" in kernels, "mosaic_gpu" in kernels)
    for name in {"triton", "mosaic_gpu"} - {*kernels}:
        reason = choice._why_not(name, here, (), None)
        assert f"here is: {kind} of compute capability {capability}." in str(reason)


def test_a_kernel_that_was_not_measured_runs_where_it_is_named_alone():
    assert "mosaic_gpu" not in choice.GPU_KERNELS
    with pytest.raises(NotImplementedError, match="NVIDIA GPUs of compute capability 9 and 10, here is: cpu"):
        dynamic_filter(*(jnp.ones(struct.shape) for struct in (X, SPATIAL, CHANNEL)), implementation="mosaic_gpu")


@pytest.mark.skipif(compat.no_mosaic_gpu() is None, reason="this JAX has Mosaic GPU")
def test_a_jax_without_mosaic_gpu_is_named():
    with pytest.raises(NotImplementedError, match=rf"'mosaic_gpu' needs JAX 0.11 or newer, here is {jax.__version__}"):
        choice.choose(("mosaic_gpu",), device.DEFAULT_GPU, ())


def test_a_program_for_the_cpu_of_a_machine_with_a_gpu_has_no_kernel(monkeypatch):
    gpu = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H200", compute_capability="9.0")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda **_: [gpu])
    with on("gpu", gpu.device_kind):  # newer Pallas asks the mesh or the real machine for the GPU's properties
        assert kernels("cuda") == 1
        assert kernels("cpu") == 0
    assert kernels("cpu") == 0
    assert dynamic_filter(*(jnp.ones(struct.shape) for struct in (X, SPATIAL, CHANNEL))).shape == X.shape


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_elsewhere_xla_is_the_best_and_nothing_is_logged(logged, platform):
    assert kernels(platform) == 0
    assert not logged.records


def test_a_named_implementation_runs_or_raises_with_the_reason():
    reason = r"'triton' runs on NVIDIA GPUs from Ampere on, here is: cpu\."
    with pytest.raises(NotImplementedError, match=rf"{reason} Add 'xla', which runs everywhere\."):
        dynamic_filter(jnp.zeros(X.shape), None, jnp.zeros(CHANNEL.shape), implementation="triton")
    assert kernels("cuda", implementation="triton") == 1
    with (
        jax.enable_x64(True),
        pytest.raises(NotImplementedError, match=r"'triton' has no float64\. Add 'xla'"),
    ):
        kernels("cuda", arrays=DOUBLE, implementation="triton")


def test_of_several_implementations_the_first_that_can_runs():
    assert kernels("cuda", implementation=("triton", "xla")) == 1
    assert kernels("cuda", implementation=("xla", "triton")) == 0
    assert kernels("cpu", implementation=["triton", "xla"]) == 0
