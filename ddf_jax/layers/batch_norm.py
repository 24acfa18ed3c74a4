"""Batch normalisation with torch's statistics."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.functional import channel_spread, channel_sums, check_channels, rectified_affine
from ddf_jax.layers.inputs import compute_dtype
from ddf_jax.layers.options import python_numbers
from pallas_kernels import accumulator_dtype

_GROUPS: contextvars.ContextVar[int] = contextvars.ContextVar("groups", default=1)
_COUNTED: contextvars.ContextVar[Array | None] = contextvars.ContextVar("counted", default=None)


@contextlib.contextmanager
def statistics_of(samples: Array | None) -> Iterator[None]:
    """Within it, the batch of every `BatchNorm` is that of the samples where this [B] is true; the others are padding.
    With None all are true.

    All samples are normalised. With none that count, the running statistics stay as they are. It must be entered within
    the function that is compiled: `jax.jit` does not see it.
    """
    token = _COUNTED.set(samples)
    try:
        yield
    finally:
        _COUNTED.reset(token)


@contextlib.contextmanager
def statistics_of_groups(groups: int) -> Iterator[None]:
    """Within it, every `BatchNorm` in training normalises so many consecutive parts of a batch, each by itself.

    The running statistics are updated with the means of theirs. With parts as large as a device's share of the batch it
    does what frameworks do that keep the statistics of each device apart, on any number of devices. It must be entered
    within the function that is compiled: `jax.jit` does not see it.
    """
    token = _GROUPS.set(groups)
    try:
        yield
    finally:
        _GROUPS.reset(token)


class BatchNorm(nnx.Module):
    """Normalises every channel over the whole batch: [B, …, C] to the same shape and dtype.

    ``y = (x - mean) / sqrt(var + epsilon) · scale + bias`` with the biased variance of the batch in training and the
    running statistics in evaluation (`model.train()`, `model.eval()`). As in torch, the running variance averages the
    unbiased one, and ``running ← (1 - momentum) · running + momentum · batch``.

    Under `jax.jit` with a sharded batch the statistics are those of the global batch, within `statistics_of` those of
    its samples, within `statistics_of_groups` those of its parts. They are computed in float32 (float64 for float64).

    Args:
        num_features: C.
        momentum: weight of the newest batch in the running statistics.
        epsilon: added to the variance.
        scale_init: initialiser of `scale`; zeros make a residual block start as the identity.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Reference: Ioffe & Szegedy, 2015.
    """

    @python_numbers
    def __init__(
        self,
        num_features: int,
        *,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        scale_init: nnx.Initializer = jax.nn.initializers.ones,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.scale = nnx.Param(scale_init(rngs.params(), (num_features,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((num_features,), param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros((num_features,), param_dtype))
        self.var = nnx.BatchStat(jnp.ones((num_features,), param_dtype))
        self.momentum = momentum
        self.epsilon = epsilon
        self.dtype = dtype
        self.num_features = num_features
        self.use_running_average = False

    def __call__(self, x: Array) -> Array:
        return self._normalized(x, relu=False)

    def _normalized(self, x: Array, *, relu: bool) -> Array:
        check_channels(x, self.num_features)
        groups = 1 if self.use_running_average else _GROUPS.get()
        if groups == 1:
            y, moments = self._of_one_batch(x, relu)
        else:
            y, moments = self._of_groups(x, relu, groups)
        if moments is not None:
            _update(self.mean, moments.mean, moments.momentum)
            _update(self.var, moments.var, moments.momentum)
        return y.astype(compute_dtype(x, self.dtype))

    def _of_groups(self, x: Array, relu: bool, groups: int) -> tuple[Array, "_Moments"]:
        if len(x) % groups:
            raise ValueError(f"The batch must be a multiple of the {groups} groups of its statistics, got {x.shape}.")
        parts = x.reshape(groups, len(x) // groups, *x.shape[1:])
        samples = _COUNTED.get()
        of_parts = None if samples is None else samples.reshape(groups, -1)

        def normalize(part: Array, samples: Array | None) -> tuple[Array, _Moments | None]:
            with statistics_of(samples):
                return self._of_one_batch(part, relu)

        y, found = jax.vmap(normalize)(parts, of_parts)
        moments: Any = found  # in training there are some
        momentum = jnp.broadcast_to(jnp.asarray(moments.momentum, moments.mean.dtype), (groups,))  # 0: nothing counted
        share = momentum / jnp.maximum(momentum.sum(), jnp.finfo(momentum.dtype).tiny)
        return y.reshape(x.shape), _Moments(share @ moments.mean, share @ moments.var, momentum.mean())

    def _of_one_batch(self, x: Array, relu: bool) -> tuple[Array, "_Moments | None"]:
        training = not self.use_running_average
        samples = _COUNTED.get() if training else None
        if samples is not None and samples.shape != x.shape[:1]:
            raise ValueError(f"`samples` must be of the {x.shape[0]} samples of x, got the shape {samples.shape}.")
        running, affine = (self.mean[...], self.var[...]), (self.scale[...], self.bias[...])
        y, batch = _normalize(x, running, affine, samples, training=training, epsilon=self.epsilon, relu=relu)
        if batch is None:
            return y, None
        mean, var = batch
        return y, _Moments(mean, var, self.momentum if samples is None else jnp.where(samples.any(), self.momentum, 0))


class _Moments(NamedTuple):
    """Statistics of a batch for the running ones: `var` is the unbiased one, `momentum` the weight of both."""

    mean: Array
    var: Array
    momentum: Any


# Compiled as a part of what surrounds it; but it is traced and differentiated once for all layers of the same shapes.
@functools.partial(jax.jit, static_argnames=("training", "epsilon", "relu"))
def _normalize(
    x: Array,
    running: tuple[Array, Array],
    affine: tuple[Array, Array],
    samples: Array | None,
    *,
    training: bool,
    epsilon: float,
    relu: bool,
) -> tuple[Array, tuple[Array, Array] | None]:
    """y, and in training the mean and the unbiased variance of the batch."""
    wide = x.astype(accumulator_dtype(x))
    mean, var, scale, bias = (values.astype(wide.dtype) for values in (*running, *affine))
    # Values relative to the running mean are small: no digits are lost where the mean is many deviations from 0.
    # A bfloat16 has fewer digits than the sums of its values can lose, and a mean less to read makes XLA fuse more.
    origin = jnp.zeros_like(mean) if training and x.dtype == jnp.bfloat16 else mean
    centred = wide - _per_channel(origin, x)
    offset, batch = jnp.zeros_like(mean), None
    if training:
        counted, count, unbiased = _counted(centred, samples)
        # Both moments come from one pass over x; the clip removes what rounding leaves below zero.
        offset, square = (total / count for total in channel_sums(counted, counted * counted))
        var = jnp.maximum(square - offset * offset, 0)
        batch = origin + offset, var * unbiased
    # With one factor and one shift per channel the backward pass needs two sums, of dy and of dy · x.
    factor = jax.lax.rsqrt(var + epsilon) * scale
    shift = bias - offset * factor
    if training:
        factor, shift = channel_spread(factor, shift, centred)
    else:
        factor, shift = _per_channel(factor, x), _per_channel(shift, x)
    return rectified_affine(centred, factor, shift) if relu else centred * factor + shift, batch


def _counted(x: Array, samples: Array | None) -> tuple[Array, Any, Any]:
    """x with zeros for padding, how many values a channel has without it (n), and n / (n - 1)."""
    count = x.size // x.shape[-1]
    if samples is None:
        return x, count, count / max(count - 1, 1)
    count = samples.sum(dtype=x.dtype) * (count // x.shape[0])
    x = jnp.where(samples.reshape(-1, *(1,) * (x.ndim - 1)), x, 0)
    return x, jnp.maximum(count, 1), count / jnp.maximum(count - 1, 1)


def _update(running: nnx.BatchStat, batch: Array, momentum: Any) -> None:
    batch = jax.lax.stop_gradient(batch).astype(running[...].dtype)
    # `running[...] = value` asks a traced value for its sharding: for the text of its refusal JAX searches all that it
    # traced before, half of the time that a deep network takes.
    running.set_value(((1 - momentum) * running[...] + momentum * batch).astype(running[...].dtype))


def _per_channel(values: Array, x: Array) -> Array:
    """[C] to the rank of x."""
    return values.reshape((1,) * (x.ndim - 1) + values.shape)


_CALL = BatchNorm.__call__


def norm_relu(norm: Callable[[Array], Array], x: Array) -> Array:
    """`jax.nn.relu(norm(x))`. After a `BatchNorm` its derivative keeps no masked cotangent in memory."""
    # A subclass may define its own call, and hooks such as those of `ddf_jax.capture` replace it.
    if isinstance(norm, BatchNorm) and type(norm).__call__ is _CALL:
        return norm._normalized(x, relu=True)
    return jax.nn.relu(norm(x))
