"""Normalisations of generated filters: filter normalisation and the alternatives of its ablation."""

from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.layers.batch_norm import BatchNorm
from ddf_jax.layers.inputs import compute_dtype
from ddf_jax.layers.options import python_numbers
from pallas_kernels import accumulator_dtype, square_root

OperatorOptions = tuple[tuple[str, Any], ...]
"""Names and values of keyword arguments. A dict could not be hashed."""


class FilterNormalization(Protocol):
    """Makes a module that normalises generated filters: [..., taps, filters] or [..., filters, taps] to the same shape.

    `tap_axis` is -1 or -2, `shape` the last two axes, and `learned` asks for a scale that is trained.
    """

    def __call__(
        self,
        shape: tuple[int, int],
        *,
        tap_axis: Literal[-1, -2],
        learned: bool,
        dtype: jnp.dtype | None,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> nnx.Module: ...


class FilterNorm(nnx.Module):
    r"""Gives each generated filter mean 0 and deviation 1 over its T taps, then scales and shifts it.

    .. math:: \alpha \, \frac{f - \mu(f)}{\delta(f) + 10^{-10}} + \beta

    with the unbiased deviation δ. α is the constant gain/K, or learned (`scale`) and starts as N(0, 1)·gain/K; β is 0,
    or learned (`mean`) and starts as N(0, 1). Computed in float32 (float64 for float64), returned in `dtype`. Where all
    values of a filter are equal, the derivative of δ is 0, as in torch: gradients are finite, and as large as α/10⁻¹⁰.

    Args:
        shape: the last two axes of the filters: (G, T) for spatial filters, (T, C) for channel filters.
        tap_axis: axis of the taps, -1 or -2.
        learned: whether α is learned, one value per filter and tap.
        learned_mean: whether β exists.
        gain: √2 before a ReLU, 1 for a linear output.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Reference: Zhou et al., "Decoupled Dynamic Filter Networks", CVPR 2021, Eq. 3, and its code, where α of the spatial
    filter is constant, α of the channel filter learned, and β left out.
    """

    @python_numbers
    def __init__(
        self,
        shape: tuple[int, int],
        *,
        tap_axis: Literal[-1, -2],
        learned: bool = False,
        learned_mean: bool = False,
        gain: float = 2**0.5,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        taps = shape[tap_axis]
        if taps < 2:
            raise UserError(
                f"A filter of one tap has no deviation: `shape` must have ≥ 2 taps, got {shape}, {tap_axis=}."
            )
        self.gain = gain
        self.constant = gain / taps**0.5
        self.shape = tuple(shape)
        self.tap_axis = tap_axis
        self.dtype = dtype
        self.scale = self.mean = nnx.data(None)
        if learned:
            self.scale = nnx.Param(jax.random.normal(rngs.params(), shape, param_dtype) * self.constant)
        if learned_mean:
            self.mean = nnx.Param(jax.random.normal(rngs.params(), shape, param_dtype))

    def __call__(self, filters: Array) -> Array:
        _check(filters, self.shape)
        wide = filters.astype(accumulator_dtype(filters))
        centred = wide - wide.mean(self.tap_axis, keepdims=True)
        taps = filters.shape[self.tap_axis]
        deviation = square_root((centred * centred).sum(self.tap_axis, keepdims=True) / (taps - 1))
        y = centred / (deviation + 1e-10)
        y = y * (self.constant if self.scale is None else _broadcast(self.scale, y))
        if self.mean is not None:
            y = y + _broadcast(self.mean, y)
        return y.astype(compute_dtype(filters, self.dtype))


def operator_options(norm: nnx.Module | None) -> OperatorOptions:
    """The options with which `pallas_kernels.dynamic_filter` normalises a spatial filter as the module does.

    The operator does so in registers. It can for a `FilterNorm` over the last axis without parameters; for others the
    options are empty, and the module must be called.
    """
    if type(norm) is not FilterNorm or norm.tap_axis != -1 or norm.scale is not None or norm.mean is not None:
        return ()
    return ("normalize", "filter_norm"), ("gain", norm.gain)


def used_filters(branch: nnx.Module, filters: Array) -> Array:
    """What the operator makes of the filters that a branch returns: it normalises some spatial filters itself."""
    if getattr(branch, "normalize", None) == "softmax":
        return jax.nn.softmax(filters, axis=-1)
    last: Any = branch.layers[-1] if isinstance(branch, nnx.Sequential) else branch
    norm: Any = getattr(last, "norm", None)
    return norm(filters) if operator_options(norm) else filters


class FilterBatchNorm(nnx.Module):
    """Batch normalisation of every filter value, the first alternative in the ablation of FilterNorm (Table 3b)."""

    @python_numbers
    def __init__(
        self,
        shape: tuple[int, int],
        *,
        tap_axis: Literal[-1, -2],
        learned: bool = False,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del tap_axis, learned  # every value has a scale and a shift of its own, always learned
        self.shape = tuple(shape)
        self.norm = BatchNorm(shape[0] * shape[1], dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, filters: Array) -> Array:
        _check(filters, self.shape)
        return self.norm(filters.reshape(*filters.shape[:-2], -1)).reshape(filters.shape)


class FilterSigmoid(nnx.Module):
    """A sigmoid of every filter value, the second alternative in the ablation of FilterNorm (Table 3b)."""

    @python_numbers
    def __init__(
        self,
        shape: tuple[int, int],
        *,
        tap_axis: Literal[-1, -2],
        learned: bool = False,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        del tap_axis, learned, param_dtype, rngs
        self.shape = tuple(shape)
        self.dtype = dtype

    def __call__(self, filters: Array) -> Array:
        _check(filters, self.shape)
        return jax.nn.sigmoid(filters.astype(compute_dtype(filters, self.dtype)))


def _check(filters: Array, shape: tuple[int, ...]) -> None:
    if filters.shape[-2:] != shape:
        raise UserError(f"`filters` must end in the axes `shape` = {shape}, got {filters.shape}.")


def _broadcast(parameter: nnx.Param, like: Array) -> Array:
    return parameter[...].astype(like.dtype).reshape((1,) * (like.ndim - 2) + parameter[...].shape)
