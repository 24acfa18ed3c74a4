"""The papers' formulas in NumPy and float64, as loops over output pixels, and the check of a layer against them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def drawn(make: Any) -> Any:
    """The layer of `make(rngs=…)` in evaluation mode, with random parameters and statistics.

    An initial zero or one would hide a branch, and compiling the initialisers takes longer than the tests.
    """
    layer = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    layer.eval()
    rng = np.random.default_rng(0)
    structure, parameters, statistics, rest = nnx.split(layer, nnx.Param, nnx.BatchStat, ...)
    parameters = jax.tree.map(lambda p: (rng.normal(size=p.shape) * 0.3).astype(p.dtype), parameters)
    statistics = jax.tree.map(lambda p: rng.uniform(0.5, 1.5, p.shape).astype(p.dtype), statistics)
    return nnx.merge(structure, parameters, statistics, rest)


def run(layer: Any, *inputs: np.ndarray, dtype=jnp.float32) -> np.ndarray:
    """The output of the layer for these inputs, computed in `dtype`."""
    layer = nnx.merge(*nnx.split(layer))
    modules: Any = nnx.iter_modules(layer)
    for _, module in modules:
        if hasattr(module, "dtype"):
            module.dtype = dtype
    structure, state = nnx.split(layer)
    arguments = state, *(x.astype(dtype) for x in inputs)
    y = jax.jit(lambda state, *x: nnx.merge(structure, state)(*x))(*arguments)
    assert y.dtype == dtype
    return np.asarray(y).astype(np.float32)


def check(layer: Any, expected: np.ndarray, *inputs: np.ndarray) -> None:
    """Asserts that the layer returns `expected`, to rounding in float32 and in bfloat16."""
    for dtype, tolerance in ((jnp.float32, 3e-5), (jnp.bfloat16, 0.06)):
        y = run(layer, *inputs, dtype=dtype)
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=str(dtype))


def parameters(layer: Any) -> dict:
    """Nested dictionaries of float64 arrays: parameters and statistics."""
    return jax.tree.map(np.float64, nnx.to_pure_dict(nnx.state(layer, (nnx.Param, nnx.BatchStat))))


def image(*shape: int, seed: int = 1) -> np.ndarray:
    """Random values that are exact in bfloat16."""
    return np.random.default_rng(seed).normal(size=shape).astype(jnp.bfloat16).astype(np.float64)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def linear(x: np.ndarray, p: dict) -> np.ndarray:
    return x @ p["kernel"] + p.get("bias", 0)


def norm(x: np.ndarray, p: dict) -> np.ndarray:
    return (x - p["mean"]) / np.sqrt(p["var"] + 1e-5) * p["scale"] + p["bias"]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def windows(x: np.ndarray, kernel_size: int, *, stride: int = 1, dilation: int = 1):
    """The K×K inputs of each output pixel (i, j): [B, K, K, C], zero outside the image."""
    halo = dilation * (kernel_size // 2)
    padded = np.pad(x, ((0, 0), (halo, halo), (halo, halo), (0, 0)))
    for i, j in np.ndindex(-(-x.shape[1] // stride), -(-x.shape[2] // stride)):
        rows, columns = (slice(at * stride, at * stride + 2 * halo + 1, dilation) for at in (i, j))
        yield (i, j), padded[:, rows, columns]


def conv(x: np.ndarray, p: dict, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> np.ndarray:
    kernel = p["kernel"]
    taps, outputs = windows(x, kernel.shape[0], stride=stride, dilation=dilation), kernel.shape[-1]
    y = np.zeros((x.shape[0], -(-x.shape[1] // stride), -(-x.shape[2] // stride), outputs))
    inside, out = x.shape[-1] // groups, outputs // groups
    for (i, j), seen in taps:
        for g in range(groups):
            part = seen[..., g * inside : (g + 1) * inside], kernel[..., g * out : (g + 1) * out]
            y[:, i, j, g * out : (g + 1) * out] = np.einsum("bijc,ijcd->bd", *part)
    return y + p.get("bias", 0)


def spatial_filter(x: np.ndarray, filters: np.ndarray, *, stride: int = 1, dilation: int = 1) -> np.ndarray:
    """Σ_t filters[…, g(c), t] · x[p + t, c] with filters [B, Ho, Wo, G, T]."""
    kernel_size, groups = int(filters.shape[-1] ** 0.5), filters.shape[-2]
    y = np.zeros((*filters.shape[:3], x.shape[-1]))
    for (i, j), seen in windows(x, kernel_size, stride=stride, dilation=dilation):
        weights = np.repeat(filters[:, i, j], x.shape[-1] // groups, axis=1)  # [B, C, T]
        y[:, i, j] = np.einsum("bct,btc->bc", weights, seen.reshape(x.shape[0], -1, x.shape[-1]))
    return y


def average_pool(x: np.ndarray, size: int) -> np.ndarray:
    rows, columns = -(-x.shape[1] // size), -(-x.shape[2] // size)
    y = np.zeros((x.shape[0], rows, columns, x.shape[-1]))
    for i, j in np.ndindex(rows, columns):
        y[:, i, j] = x[:, i * size : (i + 1) * size, j * size : (j + 1) * size].mean((1, 2))
    return y


def involution_filters(x: np.ndarray, p: dict, groups: int, stride: int) -> np.ndarray:
    y = relu(norm(linear(average_pool(x, stride), p["reduce"]), p["norm"]))
    filters = linear(y, p["span"])
    return filters.reshape(*filters.shape[:3], groups, -1)
