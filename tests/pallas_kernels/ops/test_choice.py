"""The choice of an implementation: the best that can run here; a named one runs or raises."""

import logging
import types

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels import aot, dynamic_filter
from pallas_kernels.ops import api

X, SPATIAL, CHANNEL = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 6, 5, 8), (2, 6, 5, 1, 9), (2, 9, 8)))
DOUBLE = [jax.ShapeDtypeStruct(struct.shape, jnp.float64) for struct in (X, SPATIAL, CHANNEL)]


@pytest.fixture
def logged(caplog):
    api._log_once.cache_clear()
    caplog.set_level(logging.WARNING, api.__name__)
    return caplog


def on(platform: str, device_kind: str):
    """A mesh of a compile-only device."""
    device = jax.sharding.AbstractDevice(device_kind=device_kind, num_cores=None, platform=platform)
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device))


def has_kernel(*arrays, **options) -> bool:
    return "pallas_call" in str(jax.make_jaxpr(lambda *a: dynamic_filter(*a, **options))(*arrays))


def test_an_nvidia_gpu_gets_the_kernel_in_both_passes(logged):
    def loss(*inputs):
        return jnp.sum(dynamic_filter(*inputs))

    kernels = aot.triton_kernels(jax.grad(loss, argnums=(0, 1, 2)), X, SPATIAL, CHANNEL)
    names = {kernel.name.removeprefix("dynamic_filter_") for kernel in kernels}
    assert names >= {"dx", "dspatial", "dchannel"}
    assert [kernel.name for kernel in aot.triton_kernels(dynamic_filter, X, SPATIAL, CHANNEL)] == ["dynamic_filter_fwd"]
    assert not logged.records


def test_float64_on_a_gpu_runs_as_xla_and_is_logged_once(logged):
    with jax.enable_x64(True), on("gpu", "NVIDIA H200"):
        assert not has_kernel(*DOUBLE)
        assert not has_kernel(*DOUBLE, dilation=2)
    [record] = logged.records
    assert record.getMessage() == ("dynamic_filter runs as XLA on this GPU: implementation='triton' has no float64.")


def test_a_gpu_of_another_maker_runs_xla_and_is_logged(logged):
    with on("gpu", "AMD Instinct MI300X"):
        assert not has_kernel(X, SPATIAL, CHANNEL)
    assert "runs on NVIDIA GPUs from Ampere on, here is: AMD Instinct MI300X." in logged.text


@pytest.mark.parametrize(
    ("kind", "capability", "has_kernel"),
    [
        ("NVIDIA H200", "9.0", True),
        ("A100-SXM4-40GB", "8.0", True),  # the name in older drivers
        ("NVIDIA B200", "10.0", True),
        ("NVIDIA GeForce RTX 2080 Ti", "7.5", False),
        ("Tesla V100-SXM2-16GB", "7.0", False),
        ("AMD Instinct MI300X", "gfx942", False),
    ],
)
def test_real_gpus_run_the_kernel_from_ampere_on(monkeypatch, kind, capability, has_kernel):
    gpu = types.SimpleNamespace(platform="gpu", device_kind=kind, compute_capability=capability)
    monkeypatch.setattr(jax, "devices", lambda backend=None: [gpu])
    reason = api._why_not("triton", (None,))
    assert (reason is None) == has_kernel
    assert has_kernel or f"here is: {kind} of compute capability {capability}." in str(reason)


def test_arrays_that_were_put_on_a_cpu_stay_there(monkeypatch):
    arrays = [jnp.ones(struct.shape) for struct in (X, SPATIAL, CHANNEL)]
    on_cpu = jax.device_put(arrays, jax.devices("cpu")[0])
    gpu = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H200", compute_capability="9.0")
    monkeypatch.setattr(jax, "devices", lambda backend=None: [gpu])
    assert api._why_not("triton", arrays) is None
    assert "here is: cpu." in str(api._why_not("triton", on_cpu))
    assert dynamic_filter(*on_cpu).shape == X.shape


@pytest.mark.parametrize(("platform", "kind"), [("cpu", "cpu"), ("tpu", "TPU v5e")])
def test_elsewhere_xla_is_the_best_and_nothing_is_logged(logged, platform, kind):
    with on(platform, kind):
        assert not has_kernel(X, SPATIAL, CHANNEL)
    assert not logged.records


def test_the_default_device_decides_on_a_machine_with_a_gpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for device in ("cpu", jax.devices("cpu")[0]):
        with jax.default_device(device):
            assert not has_kernel(X, SPATIAL, CHANNEL)


def test_a_named_implementation_runs_or_raises_with_the_reason():
    with pytest.raises(
        NotImplementedError, match=r"'triton' runs on NVIDIA GPUs from Ampere on, here is: cpu\. Use None\."
    ):
        dynamic_filter(jnp.zeros(X.shape), None, jnp.zeros(CHANNEL.shape), implementation="triton")
    with jax.enable_x64(True), on("gpu", "NVIDIA H200"):
        assert has_kernel(X, SPATIAL, CHANNEL, implementation="triton")
        with pytest.raises(NotImplementedError, match=r"'triton' has no float64\. Use None\."):
            has_kernel(*DOUBLE, implementation="triton")
